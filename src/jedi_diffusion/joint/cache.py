"""Keys and values of references, computed once and read by every step, target, prompt and seed.

Letters: S target sets; I pictures; L tokens a picture; H heads; D features a head.

Coupling "cached": references attend to references only, at one fixed timestep on clean latents, so their keys
and values depend on nothing that changes while sampling. A cache belongs to the call that made it: its
creator holds it, nothing else in the package does, and `clear` frees its tensors at once (views then raise).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from jedi_diffusion.errors import UsageError

Pair = tuple[torch.Tensor, torch.Tensor]


class ReferenceCache:
    """Keys and values of reference sets, by self-attention layer and number of the set, and the sets' sizes.

    Those of a set are (R, L, H, D), or (1, tokens, H, D) where references may differ in size.
    """

    def __init__(self) -> None:
        self._layers: dict[str, dict[int, Pair]] = {}
        self._set_sizes: tuple[int, ...] = ()

    @property
    def set_sizes(self) -> tuple[int, ...]:
        """Number of references in every reference set; empty before a pass has filled the cache."""
        return self._set_sizes

    @property
    def nbytes(self) -> int:
        """Bytes held by all keys and values."""
        return sum(each.nbytes for layer in self._layers.values() for pair in layer.values() for each in pair)

    def writer(self, set_sizes: Sequence[int]) -> CacheWriter:
        """A writer for one pass over references laid out as `set_sizes`.

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
        """A read view for a batch of len(index) target sets; set s reads reference set index[s], or none.

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

    def sets_of_layer(self, layer: str) -> list[Pair]:
        """(keys, values) of every reference set at this layer."""
        if layer not in self._layers:
            raise UsageError(
                f"The reference cache is empty at layer {layer}; run the references through first."
            )
        return [self._layers[layer][number] for number in range(len(self._set_sizes))]

    def tokens(self, number: int) -> int:
        """Return how many tokens reference set `number` has at its first layer; 0 while that is empty."""
        layer = next(iter(self._layers.values()), {})
        return layer[number][0][..., 0, 0].numel() if number in layer else 0


class CacheWriter:
    """Takes the keys and values of one pass.

    A layer's first entry stays: gradient checkpointing runs the same pass again going backward, and what it
    recomputes must not replace the tensors that the targets have read.
    """

    def __init__(self, layers: dict[str, dict[int, Pair]], set_sizes: tuple[int, ...]) -> None:
        self._layers = layers
        self._set_sizes = set_sizes
        self._written: set[tuple[str, int]] = set()

    def store(self, layer: str, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep keys and values, each (I, L, H, D), with their gradient history if they have one."""
        parts = zip(keys.split(self._set_sizes), values.split(self._set_sizes), strict=True)
        for number, (own_keys, own_values) in enumerate(parts):
            self.store_set(layer, number, own_keys, own_values)

    def store_set(self, layer: str, number: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep those of reference set `number` alone: (R, L, H, D), or (1, tokens, H, D)."""
        if (layer, number) not in self._written:
            self._written.add((layer, number))
            self._layers.setdefault(layer, {})[number] = (keys, values)


class CacheView:
    """What each target set of a batch may read: the keys and values of one reference set, or of none."""

    def __init__(self, cache: ReferenceCache, index: tuple[int | None, ...]) -> None:
        self._cache = cache
        self.index = index

    def tokens(self) -> list[int]:
        """Return how many cached tokens each target set reads."""
        return [0 if number is None else self._cache.tokens(number) for number in self.index]

    def read(self, layer: str, like: torch.Tensor, one_size: bool = True) -> list[Pair | None]:
        """(keys, values), each (R, L, H, D), for each target set, or None; they must fit `like` (I, L, H, D).

        one_size: whether L has to be the same. Raises UsageError if the layer was never filled, or at another
        picture size, width, dtype or device.
        """
        if all(number is None for number in self.index):
            return [None] * len(self.index)
        sets = self._cache.sets_of_layer(layer)
        keys, first = sets[0][0], 1 if one_size else 2
        if (keys.shape[first:], keys.dtype, keys.device) != (like.shape[first:], like.dtype, like.device):
            raise UsageError(
                f"References and targets differ at {layer}: {_describe(keys)} against {_describe(like)}; "
                "picture size, dtype and device must agree."
            )
        return [None if number is None else sets[number] for number in self.index]


def _describe(tensor: torch.Tensor) -> str:
    tokens, heads, features = tensor.shape[1:]
    return f"{tokens} tokens of {heads} x {features} in {tensor.dtype} on {tensor.device}"
