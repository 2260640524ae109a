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
    """Keys and values (I, L, H, D) of references, by self-attention layer, and the sizes of their sets."""

    def __init__(self) -> None:
        self._layers: dict[str, Pair] = {}
        self._set_sizes: tuple[int, ...] = ()

    @property
    def set_sizes(self) -> tuple[int, ...]:
        """Number of references in every reference set; empty before a pass has filled the cache."""
        return self._set_sizes

    @property
    def nbytes(self) -> int:
        """Bytes held by all keys and values."""
        return sum(tensor.nbytes for pair in self._layers.values() for tensor in pair)

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
        return CacheWriter(self._layers)

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
        """(keys, values), each (R, L, H, D), of every reference set at this layer."""
        if layer not in self._layers:
            raise UsageError(
                f"The reference cache is empty at layer {layer}; run the references through first."
            )
        keys, values = self._layers[layer]
        return list(zip(keys.split(self._set_sizes), values.split(self._set_sizes), strict=True))


class CacheWriter:
    """Takes the keys and values of one pass.

    A layer's first entry stays: gradient checkpointing runs the same pass again going backward, and what it
    recomputes must not replace the tensors that the targets have read.
    """

    def __init__(self, layers: dict[str, Pair]) -> None:
        self._layers = layers
        self._written: set[str] = set()

    def store(self, layer: str, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keeps keys and values, each (I, L, H, D), with their gradient history if they have one."""
        if layer not in self._written:
            self._written.add(layer)
            self._layers[layer] = (keys, values)


class CacheView:
    """What each target set of a batch may read: the keys and values of one reference set, or of none."""

    def __init__(self, cache: ReferenceCache, index: tuple[int | None, ...]) -> None:
        self._cache = cache
        self.index = index

    def read(self, layer: str, like: torch.Tensor) -> list[Pair | None]:
        """(keys, values), each (R, L, H, D), for each target set, or None; they must fit `like` (I, L, H, D).

        Raises UsageError if the layer was never filled, or at another picture size, width, dtype or device.
        """
        if all(number is None for number in self.index):
            return [None] * len(self.index)
        sets = self._cache.sets_of_layer(layer)
        keys = sets[0][0]
        if (keys.shape[1:], keys.dtype, keys.device) != (like.shape[1:], like.dtype, like.device):
            raise UsageError(
                f"References and targets differ at {layer}: {_describe(keys)} against {_describe(like)}; "
                "picture size, dtype and device must agree."
            )
        return [None if number is None else sets[number] for number in self.index]


def _describe(tensor: torch.Tensor) -> str:
    tokens, heads, features = tensor.shape[1:]
    return f"{tokens} tokens of {heads} x {features} in {tensor.dtype} on {tensor.device}"
