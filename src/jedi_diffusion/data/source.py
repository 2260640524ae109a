"""Where training pictures come from: the protocol that every source of sets follows.

Letters: S sets; N pictures in a set; H pixels of a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class RenderedSets:
    """Sets of one size.

    pictures: (S, N, 3, H, H) uint8. masks: (S, N, H, H) bool, true on the subject. captions[s][n] describes
    picture n of set s; names[s] is the subject alone ("a robot").
    """

    pictures: Tensor
    masks: Tensor
    captions: Sequence[Sequence[str]]
    names: Sequence[str]


class SetSource(Protocol):
    """Sets of pictures by number: `sets(first, count, ...)` is a pure function of its arguments."""

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that a caption can hold."""
        ...

    def sets(self, first: int, count: int, pictures: int, size: int, device: str) -> RenderedSets:
        """Return sets number `first` to `first + count - 1`, each of `pictures` pictures of `size` pixels a
        side.
        """
        ...
