"""What other thresholds of the affinity graph (Algorithm 1, line 14) would have joined.

Letters: T thresholds; K instances of a collage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jedi_diffusion.synthesis.report.filters import shown_by
from jedi_diffusion.synthesis.report.records import CollageRecord, InstanceRecord

Array = NDArray[np.float64]

GRID: Final = np.round(np.linspace(0, 1, 201), 3)
PRECISIONS = (0.95, 0.99)


class AffinityCurve:
    """Counts at every threshold of GRID, fed collage by collage.

    (T,) arrays: `kept` instances that have a partner; `joined` pairs in one component; `right`, of them those
    that show one subject. instances, pairs and same are the totals. known: whether subjects are.
    """

    def __init__(self) -> None:
        self._events = np.zeros((3, len(GRID) + 1), np.int64)
        self.instances = self.pairs = self.same = 0
        self.incomplete = 0
        """Collages left out, since affinities of instances that a later stage rejected are missing."""
        self.known = False

    def add(self, collage: CollageRecord) -> None:
        members = [each for each in collage.instances if each.compared]
        matrix = _matrix(members)
        if collage.lost or np.isnan(matrix).any():
            self.incomplete += 1
            return
        self.known |= collage.panels is not None
        shown = shown_by(collage.instances, collage.panels or [])
        subjects = [shown[each.number].subject for each in members]
        self.instances += len(members)
        self.pairs += len(members) * (len(members) - 1) // 2
        self.same += sum(_same(one, other) for one, other in combinations(subjects, 2))
        for affinity, counts in merges(matrix, subjects):
            self._events[:, np.searchsorted(GRID, affinity)] += counts  # joined below its affinity

    def _above(self, row: int) -> NDArray[np.int64]:
        """Return (T,) the sum of events at affinities above each threshold."""
        return self._events[row, ::-1].cumsum()[::-1][1:]

    @property
    def kept(self) -> NDArray[np.int64]:
        return self._above(0)

    @property
    def joined(self) -> NDArray[np.int64]:
        return self._above(1)

    @property
    def right(self) -> NDArray[np.int64]:
        return self._above(2)

    @property
    def precision(self) -> Array:
        """(T,) of the joined pairs, those that show one subject; NaN where none is joined."""
        return _ratio(self.right, self.joined)

    @property
    def recall(self) -> Array:
        """(T,) of the pairs that show one subject, those that are joined."""
        return _ratio(self.right, np.full(len(GRID), self.same))

    @property
    def share_kept(self) -> Array:
        """(T,) of the instances, those that have a partner."""
        return _ratio(self.kept, np.full(len(GRID), self.instances))

    def best(self) -> int:
        """Return the place of the threshold with the highest F1, the middle one where several have it."""
        scores = np.nan_to_num(2 * self.right / np.maximum(self.joined + self.same, 1))
        highest = np.flatnonzero(scores >= scores.max() - 1e-12)
        return int(highest[len(highest) // 2])

    def least(self, precision: float) -> int | None:
        """Return the place of the lowest threshold with at least this precision, None where there is none."""
        found = np.flatnonzero(self.precision >= precision)
        return int(found[0]) if len(found) else None

    def at(self, place: int) -> dict[str, float | None]:
        """Return threshold, precision, recall and share kept at a place of the grid."""
        values = (GRID[place], self.precision[place], self.recall[place], self.share_kept[place])
        names = ("threshold", "precision", "recall", "kept")
        return {
            name: None if np.isnan(value) else round(float(value), 6)
            for name, value in zip(names, values, strict=True)
        }

    def choices(self, own: float) -> dict[str, int]:
        """Return places of the grid to compare: the run's own threshold and, where the truth is known,
        others.
        """
        found = {"this run's": int(np.abs(GRID - own).argmin())}
        if self.known:
            found["highest F1"] = self.best()
            places = {f"lowest with precision {least:.2f}": self.least(least) for least in PRECISIONS}
            found |= {name: place for name, place in places.items() if place is not None}
        return found

    def as_json(self, own: float) -> dict[str, Any]:
        return {
            "collages_left_out": self.incomplete,
            "instances": self.instances,
            "pairs": self.pairs,
            "pairs_of_one_subject": self.same if self.known else None,
            "choices": {name: self.at(place) for name, place in self.choices(own).items()},
            "curve": [self.at(place) for place in range(len(GRID))],
        }


def merges(affinities: Array, subjects: Sequence[str | None]) -> Iterator[tuple[float, tuple[int, int, int]]]:
    """Yield how components grow as the threshold falls: at each affinity (of (K, K)) at which two become one,
    how many instances find their first partner, how many pairs are joined, and how many of them are one
    subject.
    """
    home = [[number] for number in range(len(subjects))]
    rows, columns = np.triu_indices(len(subjects), 1)
    for place in np.argsort(-affinities[rows, columns], kind="stable"):
        one, other = home[rows[place]], home[columns[place]]
        if one is other:
            continue
        same = sum(_same(subjects[first], subjects[second]) for first in one for second in other)
        counts = ((len(one) == 1) + (len(other) == 1), len(one) * len(other), same)
        one += other
        for number in other:
            home[number] = one
        yield float(affinities[rows[place], columns[place]]), counts


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and one == other


def _matrix(members: Sequence[InstanceRecord]) -> Array:
    """Return (K, K) affinities, 1 on the diagonal, NaN where they are not known."""
    matrix = np.eye(len(members))
    for (row, one), (column, other) in combinations(enumerate(members), 2):
        near = (one.affinities or {}).get(other.number, np.nan)
        matrix[row, column] = matrix[column, row] = near
    return matrix


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Array:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
