"""Stages 2 to 4: collages, instance filters, and the affinity graph against brute force."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jedi_diffusion.errors import ModelError
from jedi_diffusion.synthesis.collages import (
    affinities,
    connected_components,
    find_instances,
    group_instances,
    instance_fault,
    make_collages,
    measure,
    on_white,
    shared_part,
)
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.records import Collage, CollagePlan, Instance, Key, Outcome, Reason
from jedi_diffusion.synthesis.settings import StageSettings
from jedi_diffusion.vision.detection import Box, Detection
from tests.helpers.synthesis_models import (
    BACKGROUND,
    DISCS,
    Detector,
    Embedder,
    Generator,
    Segmenter,
    disc_mask,
)

DISC = ObjectName("disc", "shape")
SETTINGS = StageSettings(collage_size=128)


def make_plans(count: int) -> list[CollagePlan]:
    return [CollagePlan(Key(DISC, number), "discs", ()) for number in range(count)]


def found(count: int = 1) -> Outcome[Instance]:
    collages = make_collages(make_plans(count), Generator(), SETTINGS, 0)
    return find_instances(collages.kept, Detector(), Segmenter(), SETTINGS)


def test_collages_keep_their_prompt_seed_and_model() -> None:
    made = make_collages(make_plans(2), Generator(), SETTINGS, 5).kept
    assert [collage.key.collage for collage in made] == [0, 1]
    steps = [collage.history[-1].as_json() for collage in made]
    assert steps[0] == {**steps[1], "seed": steps[0]["seed"]}
    assert steps[0]["seed"] != steps[1]["seed"]
    assert (steps[0]["stage"], steps[0]["prompt"], steps[0]["model"]) == (
        "collage",
        "discs",
        "test-generator",
    )


def test_a_generator_that_draws_another_size_is_named() -> None:
    class Small(Generator):
        def generate(self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> list:
            return super().generate(prompts, seeds, (64, 64))

    with pytest.raises(ModelError, match=r"test-generator gave a picture of mode RGB and size \(64, 64\)"):
        make_collages(make_plans(1), Small(), SETTINGS, 0)


def test_good_instances_are_cut_out_and_the_others_rejected_with_reasons() -> None:
    made = found()
    assert len(made.kept) == 4
    assert sorted(each.reason for each in made.rejected) == sorted([Reason.CUT_BY_BORDER, Reason.TOO_SMALL])
    truths = [disc_mask(128, *disc[:3]) for disc in DISCS[:4]]
    for instance in made.kept:
        box = instance.box
        whole = np.zeros((128, 128), bool)
        whole[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = instance.mask
        assert sum(np.array_equal(whole, truth) for truth in truths) == 1
        pixels = np.asarray(instance.cutout)
        assert len(np.unique(pixels[instance.mask], axis=0)) == 1
        assert (pixels[~instance.mask] == BACKGROUND).all()
    assert {each.key.instance for each in made.kept} | {each.key.instance for each in made.rejected} == set(
        range(6)
    )


def test_the_order_in_which_a_detector_answers_does_not_matter() -> None:
    class Backwards(Detector):
        def detect(self, pictures: Sequence[Image.Image], names: Sequence[str]) -> list[list[Detection]]:
            return [each[::-1] for each in super().detect(pictures, names)]

    collages = make_collages(make_plans(1), Generator(), SETTINGS, 0).kept
    one, other = (
        find_instances(collages, model, Segmenter(), SETTINGS) for model in (Detector(), Backwards())
    )
    assert [each.box for each in one.kept] == [each.box for each in other.kept]
    assert one.rejected == other.rejected


class OneBox(Detector):
    def __init__(self, *sides: float, score: float = 0.9) -> None:
        self.detection = Detection(Box(*sides), score)

    def detect(self, pictures: Sequence[Image.Image], names: Sequence[str]) -> list[list[Detection]]:
        return [[self.detection] for _ in pictures]


def test_boxes_are_clipped_to_the_picture() -> None:
    asked = []

    class Watching(Segmenter):
        def segment(self, pictures: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]) -> list[list]:
            asked.extend(boxes[0])
            return [[np.zeros((128, 128), bool)]]

    collages = make_collages(make_plans(1), Generator(), SETTINGS, 0).kept
    find_instances(collages, OneBox(-3, 5, 50, 140), Watching(), SETTINGS)
    assert asked == [Box(0, 5, 50, 128)]


@pytest.mark.parametrize(
    ("sides", "score"),
    [
        ((130, 5, 140, 20), 0.9),
        ((20, 5, 20, 20), 0.9),
        ((30, 5, 20, 20), 0.9),
        ((float("nan"), 5, 20, 20), 0.9),
        ((0, 5, 20, float("inf")), 0.9),
        ((5, 5, 20, 20), float("nan")),
    ],
)
def test_a_detector_that_gives_no_box_is_named(sides: tuple[float, ...], score: float) -> None:
    collages = make_collages(make_plans(1), Generator(), SETTINGS, 0).kept
    with pytest.raises(ModelError, match=r"test-detector gave no box in a picture of size \(128, 128\)"):
        find_instances(collages, OneBox(*sides, score=score), Segmenter(), SETTINGS)


def square(
    left: int, top: int, side: int, score: float = 0.9, size: int = 100
) -> tuple[Detection, np.ndarray]:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return Detection(Box(left, top, left + side, top + side), score), mask


@pytest.mark.parametrize(
    ("left", "top", "side", "score", "reason", "detail"),
    [
        (40, 40, 20, 0.9, None, ""),
        (40, 40, 20, 0.29, Reason.LOW_SCORE, "score 0.290 below 0.3"),
        (40, 40, 0, 0.9, Reason.EMPTY_MASK, ""),
        (40, 40, 9, 0.9, Reason.TOO_SMALL, "covers 0.0081 of the collage, less than 0.01"),
        (40, 40, 10, 0.9, None, ""),
        (10, 10, 71, 0.9, Reason.TOO_LARGE, "covers 0.5041 of the collage, more than 0.5"),
        (0, 40, 20, 0.9, Reason.CUT_BY_BORDER, "0 pixels from the border, nearer than 1"),
        (40, 80, 20, 0.9, Reason.CUT_BY_BORDER, "0 pixels from the border, nearer than 1"),
        (1, 79, 20, 0.9, None, ""),
    ],
)
def test_filters(left: int, top: int, side: int, score: float, reason: Reason | None, detail: str) -> None:
    fault = instance_fault(measure(*square(left, top, side, score)), StageSettings())
    assert fault == (None if reason is None else (reason, detail))


class Tiled(Generator):
    """Two tiles; a disc of the left one is cut off by the seam."""

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> list:
        pixels = np.full((size[1], size[0], 3), BACKGROUND, dtype=np.uint8)
        pixels[:, size[0] // 2 :] = 180
        for x, y, color in ((0.25, 0.25, 10), (0.48, 0.7, 20), (0.75, 0.5, 30)):
            mask = disc_mask(size[0], x, y, 0.12)
            mask[:, size[0] // 2 :] &= x > 0.5
            pixels[mask] = color
        return [Image.fromarray(pixels)] * len(prompts)


class ThreeDiscs(Detector):
    def detect(self, pictures: Sequence[Image.Image], names: Sequence[str]) -> list[list[Detection]]:
        found = []
        for color in (10, 20, 30):
            rows, columns = np.nonzero((np.asarray(pictures[0]) == color).all(axis=2))
            sides = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            found.append(Detection(Box(*map(float, sides)), 0.9))
        return [found for _ in pictures]


def test_instances_that_a_seam_cuts_off_are_rejected() -> None:
    collages = make_collages(make_plans(1), Tiled(), SETTINGS, 0).kept
    made = find_instances(collages, ThreeDiscs(), Segmenter(), SETTINGS)
    assert len(made.kept) == 2
    (cut,) = made.rejected
    assert (cut.reason, cut.detail) == (Reason.CUT_BY_SEAM, "0 pixels from a seam, nearer than 1")
    assert cut.box is not None
    assert cut.box[2] == 64
    blind = SETTINGS.model_copy(update={"seam": None})
    assert len(find_instances(collages, ThreeDiscs(), Segmenter(), blind).kept) == 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 8)), min_size=2, max_size=2))
def test_shared_part_is_intersection_over_the_smaller_area(squares: list[tuple[int, int, int]]) -> None:
    one, other = (measure(*square(*each, size=20)) for each in squares)
    expected = (one.mask & other.mask).sum() / min(one.mask.sum(), other.mask.sum())
    assert shared_part(one, other) == pytest.approx(expected)


def test_of_overlapping_instances_the_surest_stays() -> None:
    squares = [square(20, 20, 30, 0.5), square(22, 20, 30, 0.8), square(60, 60, 30, 0.4)]

    class Answers(Detector, Segmenter):
        def detect(self, pictures: Sequence[Image.Image], names: Sequence[str]) -> list[list[Detection]]:
            return [[detection for detection, _ in squares]]

        def segment(self, pictures: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]) -> list[list]:
            by_box = {detection.box: mask for detection, mask in squares}
            return [[by_box[box] for box in each] for each in boxes]

    collage = Collage(Key(DISC, 0), Image.new("RGB", (100, 100)), ())
    made = find_instances([collage], Answers(), Answers(), StageSettings())
    assert [each.score for each in made.kept] == [0.8, 0.4]
    (rejection,) = made.rejected
    assert (rejection.reason, rejection.detail) == (Reason.OVERLAPPING, "shares 0.933, more than 0.2")


def test_an_empty_collage_is_rejected_as_a_whole() -> None:
    empty = Collage(Key(DISC, 3), Image.new("RGB", (64, 64), BACKGROUND), ())
    made = find_instances([empty], Detector(), Segmenter(), SETTINGS)
    assert [(each.key, each.reason) for each in made.rejected] == [(empty.key, Reason.NOTHING_FOUND)]


def test_a_segmenter_that_gives_other_masks_is_named() -> None:
    class Wrong(Segmenter):
        def segment(self, pictures: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]) -> list[list]:
            return [[mask.astype(np.uint8) for mask in each] for each in super().segment(pictures, boxes)]

    collages = make_collages(make_plans(1), Generator(), SETTINGS, 0).kept
    with pytest.raises(ModelError, match="test-segmenter gave a mask of type uint8"):
        find_instances(collages, Detector(), Wrong(), SETTINGS)


def test_instances_of_one_subject_are_grouped_and_a_look_alike_is_dropped() -> None:
    made = group_instances(found(2).kept, Embedder(), SETTINGS)
    assert [(group.key.collage, group.key.group, len(group.instances)) for group in made.kept] == [
        (0, 0, 3),
        (1, 0, 3),
    ]
    compared = {str(each.key.instance) for each in found().kept}
    for group in made.kept:
        for instance in group.instances:
            assert instance.key.group == 0
            red, _, blue = np.asarray(instance.cutout)[instance.mask][0]
            assert red > blue
            near = instance.history[-1].as_json()["affinities"]
            assert near.keys() == compared - {str(instance.key.instance)}
    assert [(each.key.collage, each.reason) for each in made.rejected] == [
        (0, Reason.ALONE),
        (1, Reason.ALONE),
    ]
    assert "not above 0.95" in made.rejected[0].detail
    alone = made.rejected[0].as_json()["affinities"]
    assert alone.keys() == compared - {str(made.rejected[0].key.instance)}
    assert f"{max(alone.values()):.4f}" in made.rejected[0].detail


def test_the_threshold_itself_is_not_above_it() -> None:
    """Algorithm 1, line 14: A > 0.95."""
    instances = found().kept[:2]

    class Exact(Embedder):
        def embed(self, pictures: Sequence[Image.Image]) -> np.ndarray:
            return np.array([[5, 0], [3, 4]], np.float32)  # cosine 0.6 exactly

    at, below = (group_instances(instances, Exact(), StageSettings(affinity=value)) for value in (0.6, 0.59))
    assert not at.kept
    assert len(below.kept) == 1


def test_an_instance_is_embedded_alone_on_white() -> None:
    instance = found().kept[0]
    wide = replace(instance, cutout=instance.cutout.crop((0, 0, 20, 10)), mask=np.eye(10, 20, dtype=bool))
    pixels = np.asarray(on_white(wide))
    assert pixels.shape == (20, 20, 3)
    assert (pixels[5:15][~wide.mask] == 255).all()
    assert (pixels[:5] == 255).all()
    assert (pixels[5:15][wide.mask] == np.asarray(wide.cutout)[wide.mask]).all()


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.full((2, 3), np.nan), np.ones(2)])
def test_embeddings_without_a_direction_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ModelError, match="some-encoder gave embeddings"):
        affinities(bad, "some-encoder")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.floats(0, 0.6), st.integers(0, 2**32 - 1))
def test_components_are_what_warshalls_closure_says(count: int, density: float, seed: int) -> None:
    edges = np.random.default_rng(seed).random((count, count)) < density
    adjacent = edges | edges.T
    reach = adjacent | np.eye(count, dtype=bool)
    for middle in range(count):
        reach |= reach[:, [middle]] & reach[[middle], :]
    expected = sorted({tuple(int(index) for index in np.flatnonzero(row)) for row in reach})
    assert connected_components(adjacent) == expected


def test_affinities_are_cosines() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(5, 7))
    matrix = affinities(vectors, "encoder")
    for one in range(5):
        for other in range(5):
            cosine = sum(vectors[one] * vectors[other]) / np.sqrt(
                sum(vectors[one] ** 2) * sum(vectors[other] ** 2)
            )
            assert matrix[one, other] == pytest.approx(cosine)
