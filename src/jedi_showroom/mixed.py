"""The showroom and the toybox as one source of training sets.

Letters: S sets; N pictures in a set; H pixels of a side.
"""

import math

import torch

from jedi_diffusion.data.source import RenderedSets, SetSource


class MixedSource:
    """Two sources, spread evenly: `share` of the sets are from the first.

    A set's number says which source it is from; the k-th set from a source is its set number k.
    """

    def __init__(self, first: SetSource, second: SetSource, share: float) -> None:
        self.first, self.second, self.share = first, second, share

    @property
    def words(self) -> tuple[str, ...]:
        """Both sources' words, sorted."""
        return tuple(sorted({*self.first.words, *self.second.words}))

    def sets(self, first: int, count: int, pictures: int, size: int, device: str) -> RenderedSets:
        """Return sets number `first` and up, on the CPU."""
        before, after = self._from_first(first), self._from_first(first + count)
        parts = []
        if after > before:
            parts.append(self.first.sets(before, after - before, pictures, size, device))
        if count > after - before:
            of_second = count - (after - before)
            parts.append(self.second.sets(first - before, of_second, pictures, size, device))
        rows = self._rows(first, count)
        captions = [row for part in parts for row in part.captions]
        names = [name for part in parts for name in part.names]
        return RenderedSets(
            pictures=torch.cat([part.pictures.cpu() for part in parts])[rows],
            masks=torch.cat([part.masks.cpu() for part in parts])[rows],
            captions=[captions[row] for row in rows],
            names=[names[row] for row in rows],
        )

    def _from_first(self, number: int) -> int:
        """How many of the sets below `number` are from the first source."""
        return math.floor(number * self.share)

    def _rows(self, first: int, count: int) -> list[int]:
        """Where each set lies once the first source's sets are followed by the second's."""
        before, after = self._from_first(first), self._from_first(first + count)
        rows = []
        for number in range(first, first + count):
            taken = self._from_first(number)
            is_first = self._from_first(number + 1) > taken
            rows.append(taken - before if is_first else after - before + (number - taken) - (first - before))
        return rows
