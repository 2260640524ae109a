"""What the mixture draws from: sets by number, whatever they are stored as."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from jedi_diffusion.sets import ImageSet

if TYPE_CHECKING:
    from jedi_diffusion.data.encoded_shard import EncodedSet


PAPER_SIZES = (2, 3, 4)
"""Pictures in a set (section 4)."""


class SetCollection(Protocol):
    """Sets by number. All but the pictures themselves is known without reading them."""

    source: str
    """Where the sets come from, for messages and records."""

    def __len__(self) -> int: ...

    def name(self, item: int) -> str:
        """Set number `item` in words: the same in every run."""
        ...

    def size(self, item: int) -> int:
        """Return how many pictures set number `item` can give, at least 1."""
        ...

    def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
        """Return `size` pictures of set number `item`, chosen by the generator alone.

        Raises DataError or PictureError if the set cannot be used.
        """
        ...

    def parts(self) -> Iterator[tuple[str, str | None]]:
        """Yield every file or shard that `read` reads, with its digest where it is known without reading.

        A training compares them when it goes on (`digests.check_unchanged`).
        """
        ...


@runtime_checkable
class EncodedCollection(SetCollection, Protocol):
    """A collection that also knows what the frozen networks make of its pictures and captions."""

    def latents(self, item: int, size: int, generator: np.random.Generator) -> EncodedSet:
        """Return what `read` would give, encoded: of the same pictures in the same order.

        Raises DataError.
        """
        ...

    def check(self, encoders: str, base: str, resolution: int) -> None:
        """Raise DataError unless it was encoded by the networks of this fingerprint (`train.frozen`).

        base is what the recipe calls them; resolution is the pictures' side in pixels.
        """
        ...


def chosen(available: int, size: int, generator: np.random.Generator) -> list[int]:
    """Return `size` different numbers below `available`, in random order."""
    return [int(number) for number in generator.permutation(available)[:size]]
