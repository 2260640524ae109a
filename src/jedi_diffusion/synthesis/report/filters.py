"""What the filters keep and drop of what was drawn, where that is known: counts of instances and of pairs.

A pair is two instances of one collage; it is right where both show the same subject whole. What a filter
is for is that the pairs it keeps are right (precision), and that the right ones are kept (recall).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

from jedi_diffusion.synthesis.records import Reason, Stage
from jedi_diffusion.synthesis.report.records import Box, CollageRecord, InstanceRecord

SAME_PLACE = 0.5
"""An instance shows the panel with which it shares more than this (intersection over union of boxes)."""
SINGLE = {
    reason.name.lower(): title
    for reason, title in (
        (Reason.LOW_SCORE, "score"),
        (Reason.EMPTY_MASK, "empty mask"),
        (Reason.TOO_SMALL, "least size"),
        (Reason.TOO_LARGE, "largest size"),
        (Reason.CUT_BY_BORDER, "border"),
        (Reason.CUT_BY_SEAM, "seam"),
        (Reason.OVERLAPPING, "overlap"),
    )
}
"""The filters of stage 3 by reason, in the order in which an instance meets them."""
AFFINITY, SETS, ALL = "affinity graph", "scenes to sets", "all together"


class Shown(NamedTuple):
    """What an instance shows: whom (None: no panel), all of them or a part, and whether it did not show
    before.
    """

    subject: str | None
    whole: bool
    new: bool

    @property
    def good(self) -> bool:
        return self.subject is not None and self.whole and self.new


@dataclass
class FilterScore:
    """Sums over collages.

    received and dropped count instances; rightly: of the dropped, those that are no whole view of their own
    (of the affinity graph: that have no partner). right: right pairs received; kept: pairs kept; both: right
    pairs kept.
    """

    received: int = 0
    dropped: int = 0
    rightly: int = 0
    right: int = 0
    kept: int = 0
    both: int = 0

    @property
    def precision(self) -> float | None:
        return self.both / self.kept if self.kept else None

    @property
    def recall(self) -> float | None:
        return self.both / self.right if self.right else None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "precision": self.precision, "recall": self.recall}


@dataclass
class FilterScores:
    """The scores of every filter, fed collage by collage.

    lost: instances whose place is unknown because a later stage rejected them; they are in no count.
    """

    scores: dict[str, FilterScore] = field(
        default_factory=lambda: {name: FilterScore() for name in (*SINGLE.values(), AFFINITY, SETS, ALL)}
    )
    collages: int = 0
    lost: int = 0

    def add(self, collage: CollageRecord) -> None:
        """Count a collage whose panels are known."""
        panels = collage.panels or []
        self.collages += 1
        self.lost += collage.lost
        shown = shown_by(collage.instances, panels)
        left = list(collage.instances)

        def right(one: InstanceRecord, other: InstanceRecord) -> bool:
            first, second = shown[one.number], shown[other.number]
            return first.good and second.good and first.subject == second.subject

        for reason, name in SINGLE.items():
            passed = [each for each in left if each.dropped != (Stage.INSTANCE, reason)]
            wrong = [each for each in left if not shown[each.number].good]
            _count(self.scores[name], left, passed, wrong, right, lambda one, other: True)
            left = passed
        compared = [each for each in left if each.compared]
        grouped = [each for each in compared if each.group is not None]
        alone = [one for one in compared if not any(right(one, each) for each in compared if each is not one)]
        _count(
            self.scores[AFFINITY],
            compared,
            grouped,
            alone,
            right,
            lambda one, other: one.group == other.group,
        )
        self._count_sets(collage, panels, grouped, right)

    def _count_sets(
        self,
        collage: CollageRecord,
        panels: Sequence[dict[str, Any]],
        grouped: Sequence[InstanceRecord],
        right: Callable[[InstanceRecord, InstanceRecord], bool],
    ) -> None:
        pairs = [pair for pair in combinations(grouped, 2) if pair[0].group == pair[1].group]
        kept = [pair for pair in pairs if pair[0].set == pair[1].set]
        both = sum(right(*pair) for pair in kept)
        last, whole = self.scores[SETS], self.scores[ALL]
        last.received += len(grouped)
        last.right += sum(right(*pair) for pair in pairs)
        whole.received += len(collage.instances)
        whole.dropped += len(collage.instances) - len(grouped)
        drawn = [panel["subject"] for panel in panels if panel["whole"]]
        whole.right += sum(one == other for one, other in combinations(drawn, 2))
        for score in (last, whole):
            score.kept += len(kept)
            score.both += both


def _count(
    score: FilterScore,
    received: Sequence[InstanceRecord],
    passed: Sequence[InstanceRecord],
    unwanted: Sequence[InstanceRecord],
    right: Callable[[InstanceRecord, InstanceRecord], bool],
    together: Callable[[InstanceRecord, InstanceRecord], bool],
) -> None:
    numbers = {each.number for each in passed}
    score.received += len(received)
    score.dropped += len(received) - len(passed)
    score.rightly += sum(each.number not in numbers for each in unwanted)
    score.right += sum(right(*pair) for pair in combinations(received, 2))
    kept = [pair for pair in combinations(passed, 2) if together(*pair)]
    score.kept += len(kept)
    score.both += sum(right(*pair) for pair in kept)


def shown_by(instances: Sequence[InstanceRecord], panels: Sequence[dict[str, Any]]) -> dict[int, Shown]:
    """Return what each instance shows, by its number; of several that show one panel, the surest is the new
    one.
    """
    seen: set[int] = set()
    found = {}
    for instance in sorted(instances, key=lambda each: each.number):
        shares = [intersection_over_union(instance.box, tuple(panel["box"])) for panel in panels]
        place = max(range(len(panels)), key=shares.__getitem__, default=None)
        if place is None or shares[place] <= SAME_PLACE:
            found[instance.number] = Shown(None, False, False)
            continue
        panel = panels[place]
        found[instance.number] = Shown(panel["subject"], panel["whole"], place not in seen)
        seen.add(place)
    return found


def intersection_over_union(one: Box, other: Box) -> float:
    """Of two boxes (left, top, right, bottom), in [0, 1]."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0
