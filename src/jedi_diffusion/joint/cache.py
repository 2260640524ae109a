"""Keys and values of references, computed once and read by every step, target, prompt and seed.

Letters: S target sets; I pictures; L tokens a picture; H heads; D features a head.

Coupling "cached": references attend to references only, at one fixed timestep on clean latents, so their keys
and values depend on nothing that changes while sampling. Its creator holds a cache, nothing else in the
package does: a call, or who asked to keep it (`references.EncodedReferences`). `clear` frees its tensors at
once (views then raise).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from jedi_diffusion.errors import UsageError
from jedi_diffusion.visibility import Box, VisibleTokens

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values."""

Span = tuple[int, Box | None]
"""A number of tokens, and the part of a target that reads them."""


class CachedTokens(NamedTuple):
    """Keys and values of a reference set at one layer: (R, L, H, D), or those read (1, tokens, H, D).

    The second form is that of references which may differ in size, or are not read whole: `places` (tokens,)
    are then the numbers of those read among all `total` tokens of the set, ascending; None for all. bias
    (tokens,) is added to their scores, None for nothing. sizes: grids (h, w) of the references' tokens, where
    these may differ. spans: how many tokens in a row which part of a target reads, None for all of it; empty
    where that is so for all.
    """

    keys: torch.Tensor
    values: torch.Tensor
    places: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    total: int = 0
    sizes: tuple[tuple[int, int], ...] = ()
    spans: tuple[Span, ...] = ()


def visible_tokens(
    keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], visible: Sequence[VisibleTokens | None]
) -> CachedTokens:
    """Return what others read of images, keys and values (L, H, D) of each, as (1, tokens, H, D)."""
    strengths, places, spans, start = [], [], list[Span](), 0
    for own, seen in zip(keys, visible, strict=True):
        given = None if seen is None else seen.places
        read = torch.arange(len(own), device=own.device) if given is None else given
        places.append(read + start)
        strengths.append(own.new_full((len(read),), 0.0 if seen is None else seen.bias))
        spans.append((len(read), None if seen is None else seen.box))
        start += len(own)
    kept = torch.cat(places)
    has_bias = any(seen is not None and seen.bias for seen in visible)
    return CachedTokens(
        torch.cat(tuple(keys))[kept][None],
        torch.cat(tuple(values))[kept][None],
        kept,
        torch.cat(strengths) if has_bias else None,
        start,
        spans=tuple(spans) if any(box for _, box in spans) else (),
    )


class ReferenceCache:
    """Keys and values of reference sets, by self-attention layer and number of the set, and the sets' sizes.

    See `CachedTokens`.
    """

    def __init__(self) -> None:
        self._layers: dict[str, dict[int, CachedTokens]] = {}
        self._set_sizes: tuple[int, ...] = ()

    @classmethod
    def joined(cls, caches: Sequence[ReferenceCache]) -> ReferenceCache:
        """Return one of all their sets, in order; it holds the same tensors."""
        made = cls()
        for cache in caches:
            for layer, sets in cache._layers.items():
                start = len(made._set_sizes)
                made._layers.setdefault(layer, {}).update({start + n: read for n, read in sets.items()})
            made._set_sizes += cache._set_sizes
        return made

    @property
    def set_sizes(self) -> tuple[int, ...]:
        """Number of references in every reference set; empty before a pass has filled the cache."""
        return self._set_sizes

    @property
    def nbytes(self) -> int:
        """Bytes held by all keys and values."""
        kept = (read for layer in self._layers.values() for read in layer.values())
        return sum(read.keys.nbytes + read.values.nbytes for read in kept)

    def writer(self, set_sizes: Sequence[int]) -> CacheWriter:
        """Return a writer for one pass over references laid out as `set_sizes`.

        Raises UsageError if the cache already holds another pass: two subjects never share a cache.
        """
        if self._set_sizes:
            raise UsageError("This reference cache is already filled; make a new one, or clear it first.")
        if min(set_sizes, default=0) < 1:
            raise UsageError(
                f"Reference sets need at least one picture each; the sizes are {tuple(set_sizes)}."
            )
        self._set_sizes = tuple(set_sizes)
        return CacheWriter(self._layers, self._set_sizes)

    def for_sets(self, index: Sequence[int | None]) -> CacheView:
        """Return a read view for a batch of len(index) target sets; set s reads reference set index[s], or
        none.

        Raises UsageError for an index that no reference set has.
        """
        for number in index:
            if number is not None and not 0 <= number < len(self._set_sizes):
                raise UsageError(
                    f"The cache has no reference set {number}; it holds {len(self._set_sizes)}, from 0 on."
                )
        return CacheView(self, tuple(index))

    def clear(self) -> None:
        """Frees all keys and values; views made before can no longer be read."""
        self._layers.clear()
        self._set_sizes = ()

    def sets_of_layer(self, layer: str) -> list[CachedTokens]:
        """Return what every reference set has at this layer."""
        if layer not in self._layers:
            raise UsageError(
                f"The reference cache is empty at layer {layer}; run the references through first."
            )
        return [self._layers[layer][number] for number in range(len(self._set_sizes))]

    def tokens(self, number: int) -> int:
        """Return how many tokens reference set `number` has at its first layer; 0 while that is empty."""
        layer = next(iter(self._layers.values()), {})
        return layer[number].keys[..., 0, 0].numel() if number in layer else 0

    def spans(self, number: int) -> tuple[Span, ...]:
        """Return the spans of reference set `number` at its first layer."""
        layer = next(iter(self._layers.values()), {})
        return layer[number].spans if number in layer else ()


class CacheWriter:
    """Takes the keys and values of one pass.

    A layer's first entry stays: gradient checkpointing runs the same pass again going backward, and what it
    recomputes must not replace the tensors that the targets have read.
    """

    def __init__(self, layers: dict[str, dict[int, CachedTokens]], set_sizes: tuple[int, ...]) -> None:
        self._layers = layers
        self._set_sizes = set_sizes
        self._written: set[tuple[str, int]] = set()

    def store(
        self,
        layer: str,
        keys: torch.Tensor,
        values: torch.Tensor,
        visible: Sequence[VisibleTokens | None] | None = None,
    ) -> None:
        """Keep keys and values, each (I, L, H, D), with their gradient history if they have one.

        visible: for each image what others read of it; nothing else of it is kept.
        """
        visible, start = visible or [None] * len(keys), 0
        parts = zip(keys.split(self._set_sizes), values.split(self._set_sizes), strict=True)
        for number, own in enumerate(parts):
            seen = visible[start : start + len(own[0])]
            start += len(own[0])
            partly = visible_tokens(own[0].unbind(), own[1].unbind(), seen) if any(seen) else None
            self.store_set(layer, number, partly or CachedTokens(*own))

    def store_set(self, layer: str, number: int, read: CachedTokens) -> None:
        """Keep those of reference set `number` alone."""
        if (layer, number) not in self._written:
            self._written.add((layer, number))
            self._layers.setdefault(layer, {})[number] = read


class CacheView:
    """What each target set of a batch may read: the keys and values of one reference set, or of none."""

    def __init__(self, cache: ReferenceCache, index: tuple[int | None, ...]) -> None:
        self._cache = cache
        self.index = index

    def tokens(self) -> list[int]:
        """Return how many cached tokens each target set reads."""
        return [0 if number is None else self._cache.tokens(number) for number in self.index]

    def spans(self) -> list[tuple[Span, ...]]:
        """Return the spans of what each target set reads."""
        return [() if number is None else self._cache.spans(number) for number in self.index]

    def read(self, layer: str, like: torch.Tensor, one_size: bool = True) -> list[CachedTokens | None]:
        """Return what each target set reads, or None; it must fit `like` (I, L, H, D).

        one_size: whether L has to be the same. Raises UsageError if the layer was never filled, or at another
        picture size, width, dtype or device.
        """
        if all(number is None for number in self.index):
            return [None] * len(self.index)
        sets = self._cache.sets_of_layer(layer)
        keys, length = sets[0].keys, sets[0].keys.shape[1]
        if sets[0].places is not None:
            length = sets[0].total // self._cache.set_sizes[0]
        fits = (keys.shape[2:], keys.dtype, keys.device) == (like.shape[2:], like.dtype, like.device)
        if not fits or (one_size and length != like.shape[1]):
            raise UsageError(
                f"References and targets differ at {layer}: {_describe(keys, length)} against "
                f"{_describe(like, like.shape[1])}; picture size, dtype and device must agree."
            )
        return [None if number is None else sets[number] for number in self.index]


def _describe(tensor: torch.Tensor, tokens: int) -> str:
    heads, features = tensor.shape[2:]
    return f"{tokens} tokens of {heads} x {features} in {tensor.dtype} on {tensor.device}"
