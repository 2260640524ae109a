"""Filters and thresholds against plain loops over records written by hand, and over random ones."""

from itertools import combinations

import numpy as np
import pytest

from jedi_diffusion.synthesis.collages import connected_components
from jedi_diffusion.synthesis.records import Stage
from jedi_diffusion.synthesis.report.filters import FilterScores, intersection_over_union, shown_by
from jedi_diffusion.synthesis.report.records import CollageRecord, InstanceRecord, read_collages
from jedi_diffusion.synthesis.report.thresholds import GRID, AffinityCurve
from tests.helpers.synthesis_records import Written, alone, box, collage, made_set, picture, rejection

PANELS = [("a", 0, True), ("a", 1, True), ("a", 2, True), ("b", 3, True), ("b", 4, True), ("a", 5, False)]
NEAR = {
    (0, 1): 0.9,
    (0, 2): 0.7,
    (1, 2): 0.6,
    (0, 3): 0.55,
    (1, 3): 0.1,
    (2, 3): 0.1,
    (0, 4): 0.2,
    (1, 4): 0.2,
    (2, 4): 0.1,
    (3, 4): 0.3,
}


def near(number: int) -> dict[int, float]:
    return {sum(pair) - number: value for pair, value in NEAR.items() if number in pair}


def by_hand() -> CollageRecord:
    """Three views of a and one of b are one group, in two sets; the other b is alone; a cut view and a second
    find of panel 0 are dropped, and so is a good view of a.
    """
    records = [
        collage([*PANELS, ("a", 6, True)]),
        made_set([picture(0, 0, near(0)), picture(1, 1, near(1), "make it blue")]),
        made_set([picture(2, 2, near(2)), picture(3, 3, near(3))], number=1),
        rejection("prompt", "model_failed"),
        rejection("instance", "cut_by_border", 5, box=box(5)),
        rejection("instance", "too_small", 7, box=box(6)),
        rejection("instance", "overlapping", 6, box=box(0, shift=2)),
        rejection("instance", "nothing_found"),
        alone(4, 4, near(4)),
    ]
    records[3]["collage"] = 9  # could not be drawn
    (found,) = read_collages(Written(records))
    return found


def test_records_come_in_order_with_what_became_of_them() -> None:
    found = by_hand()
    assert [each.number for each in found.instances] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [(each.group, each.set) for each in found.instances[:5]] == [
        (0, 0),
        (0, 0),
        (0, 1),
        (0, 1),
        (None,) * 2,
    ]
    assert found.instances[5].dropped == (Stage.INSTANCE, "cut_by_border")
    assert [each.compared for each in found.instances] == [True] * 5 + [False] * 3
    assert found.instances[4].affinities == near(4)
    assert found.lost == 0
    assert len(found.sets) == 2
    assert found.name == "cup, collage 0"


def test_what_an_instance_shows_is_the_panel_it_shares_most_with() -> None:
    shown = shown_by(by_hand().instances, by_hand().panels)
    assert [shown[number].subject for number in range(8)] == list("aaabbaaa")
    assert [shown[number].good for number in range(8)] == [True] * 5 + [False, False, True]
    assert shown[6].whole
    assert not shown[6].new
    assert shown_by([InstanceRecord(0, (500, 0, 510, 10))], by_hand().panels)[0].subject is None
    assert shown_by([InstanceRecord(0, (0, 0, 5, 5))], [])[0].subject is None


def test_boxes_that_share_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        boxes = []
        for _ in range(2):
            left, top = rng.integers(0, 12, 2)
            width, height = rng.integers(1, 12, 2)
            boxes.append((int(left), int(top), int(left + width), int(top + height)))
        drawn = np.zeros((2, 24, 24), bool)
        for canvas, (left, top, right, bottom) in zip(drawn, boxes, strict=True):
            canvas[top:bottom, left:right] = True
        expected = (drawn[0] & drawn[1]).sum() / (drawn[0] | drawn[1]).sum()
        assert intersection_over_union(*boxes) == pytest.approx(expected)


def test_filters_are_counted_as_by_hand() -> None:
    scores = FilterScores()
    scores.add(by_hand())
    found = {name: tuple(vars(each).values()) for name, each in scores.scores.items()}
    # received, dropped, rightly, right pairs in (6 of four a, 1 of two b), pairs kept, of them right
    assert found["score"] == (8, 0, 0, 7, 28, 7)
    assert found["least size"] == (8, 1, 0, 7, 21, 4)
    assert found["border"] == (7, 1, 1, 4, 15, 4)
    assert found["overlap"] == (6, 1, 1, 4, 10, 4)
    assert found["affinity graph"] == (5, 1, 0, 4, 6, 3)
    assert found["scenes to sets"] == (4, 0, 0, 3, 2, 1)
    assert found["all together"] == (8, 4, 0, 7, 2, 1)
    graph = scores.scores["affinity graph"]
    assert (graph.precision, graph.recall) == (0.5, 0.75)
    assert scores.collages == 1
    assert FilterScores().scores["border"].precision is None


def test_the_seam_filter_is_measured_too() -> None:
    near = {0: {1: 0.9}, 1: {0: 0.9}}
    records = [
        collage([("a", 0, True), ("a", 1, True), ("a", 2, False), ("a", 3, True)]),
        made_set([picture(place, place, near[place]) for place in (0, 1)]),
        rejection("instance", "cut_by_seam", 2, box=box(2)),
        rejection("instance", "cut_by_seam", 3, box=box(3)),
    ]
    scores = FilterScores()
    scores.add(*read_collages(Written(records)))
    assert tuple(vars(scores.scores["seam"]).values()) == (4, 2, 1, 3, 1, 1)


def brute_force(collages: list[CollageRecord], threshold: float) -> tuple[int, int, int]:
    kept = joined = right = 0
    for each in collages:
        shown = shown_by(each.instances, each.panels)
        adjacent = np.zeros((len(each.instances),) * 2, bool)
        for one, other in combinations(each.instances, 2):
            joins = one.affinities[other.number] > threshold
            adjacent[one.number, other.number] = adjacent[other.number, one.number] = joins
        for component in connected_components(adjacent):
            kept += len(component) * (len(component) > 1)
            for first, second in combinations(component, 2):
                joined += 1
                right += shown[first].subject == shown[second].subject
    return kept, joined, right


def random_collage(rng: np.random.Generator) -> CollageRecord:
    count = int(rng.integers(1, 7))
    panels = [("ab"[rng.integers(2)], place, True) for place in range(count)]
    near = np.round(rng.random((count, count)), 3)  # some are exactly a threshold of the grid
    instances = [
        InstanceRecord(
            number,
            tuple(box(number)),
            affinities={other: near[min(number, other), max(number, other)] for other in range(count)},
        )
        for number in range(count)
    ]
    return CollageRecord(collage(panels), instances=instances)


def test_other_thresholds_join_what_a_new_graph_would() -> None:
    rng = np.random.default_rng(1)
    collages = [random_collage(rng) for _ in range(30)]
    curve = AffinityCurve()
    for each in collages:
        curve.add(each)
    for place in (0, 37, 100, 150, 199, 200):
        expected = brute_force(collages, float(GRID[place]))
        assert (curve.kept[place], curve.joined[place], curve.right[place]) == expected
    assert curve.instances == sum(len(each.instances) for each in collages)
    assert brute_force(collages, -1)[1:] == (curve.pairs, curve.same)
    f1 = 2 * curve.right / (curve.joined + curve.same)
    assert f1[curve.best()] == f1.max()


def test_the_curve_of_the_collage_by_hand() -> None:
    curve = AffinityCurve()
    curve.add(by_hand())
    assert curve.known
    assert (curve.instances, curve.pairs, curve.same) == (5, 10, 4)
    at = {round(each["threshold"], 3): each for each in map(curve.at, range(len(GRID)))}
    assert at[0.6] == {"threshold": 0.6, "precision": 1.0, "recall": 0.75, "kept": 0.6}
    assert at[0.5] == {"threshold": 0.5, "precision": 0.5, "recall": 0.75, "kept": 0.8}
    assert at[0.29] == {"threshold": 0.29, "precision": 0.4, "recall": 1.0, "kept": 1.0}
    assert at[0.9]["precision"] is None  # nothing is above it
    assert GRID[curve.least(0.99)] == 0.55
    assert 0.55 <= GRID[curve.best()] < 0.7
    choices = curve.choices(0.5)
    assert GRID[choices["this run's"]] == 0.5
    assert list(choices)[2:] == ["lowest with precision 0.95", "lowest with precision 0.99"]


def test_without_the_truth_only_what_is_kept_is_known() -> None:
    found = by_hand()
    del found.record["truth"]
    curve = AffinityCurve()
    curve.add(found)
    assert list(curve.choices(0.8)) == ["this run's"]
    record = curve.as_json(0.8)
    assert record["pairs_of_one_subject"] is None
    assert record["choices"]["this run's"]["kept"] == 0.4
    assert record["curve"][0]["recall"] is None


def test_a_collage_whose_affinities_are_not_all_known_is_left_out() -> None:
    curve = AffinityCurve()
    records = [collage(PANELS), made_set([picture(0, 0, near(0)), picture(1, 1, near(1))])]
    records.append(rejection("caption", "empty_caption", 2, group=0))
    (found,) = read_collages(Written(records))
    assert found.lost == 1
    curve.add(found)
    assert (curve.incomplete, curve.instances) == (1, 0)
