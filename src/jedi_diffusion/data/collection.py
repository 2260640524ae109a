"""What the mixture draws from: sets by number, whatever they are stored as."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from jedi_diffusion.data.record import SubjectSet


class SetCollection(Protocol):
    """Sets by number. All but the pictures themselves is known without reading them."""

    source: str
    """Where the sets come from, for messages and records."""

    def __len__(self) -> int: ...

    def name(self, item: int) -> str:
        """Set number `item` in words: the same in every run."""
        ...

    def size(self, item: int) -> int:
        """How many pictures set number `item` can give, at least 1."""
        ...

    def read(self, item: int, size: int, generator: np.random.Generator) -> SubjectSet:
        """`size` pictures of set number `item`, chosen by the generator alone.

        Raises DataError or PictureError if the set cannot be used.
        """
        ...


def chosen(available: int, size: int, generator: np.random.Generator) -> list[int]:
    """`size` different numbers below `available`, in random order."""
    return [int(number) for number in generator.permutation(available)[:size]]
