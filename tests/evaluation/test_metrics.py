"""Scores against closed forms and against plain loops."""

import math

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.copies import COPY_DISTANCE, COPY_SIDE, shifted_distance, thumbnail
from jedi_diffusion.estimates import weighted_mean
from jedi_diffusion.evaluation.metrics import (
    Sums,
    average,
    copy_distances,
    copy_threshold,
    cosines,
    is_compared,
    mean_pairwise_distance,
    pair_sums,
    text_sums,
)
from jedi_diffusion.pictures import fit_square

RNG = np.random.default_rng(0)


def angle(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_cosines_are_those_of_the_angles_whatever_the_lengths() -> None:
    pictures = np.array([angle(0), angle(90)]) * 7
    photos = np.array([angle(60), angle(-45), angle(180)], np.float32) * 0.1
    expected = [[0.5, math.sqrt(0.5), -1], [math.sqrt(0.75), -math.sqrt(0.5), 0]]
    assert cosines(pictures, photos) == pytest.approx(np.array(expected), abs=1e-6)


def test_a_picture_without_its_subject_scores_zero() -> None:
    pictures = np.array([[np.nan, np.nan], angle(0)])
    assert cosines(pictures, np.array([angle(0)])).tolist() == [[0], [1]]


@pytest.mark.parametrize(
    ("comparison", "left_out", "expected"),
    [
        ("all", None, [0, 1, 2, 3, 4]),
        ("others", None, [0, 2, 4]),
        ("inputs", None, [1, 3]),
        ("all", 2, [0, 1, 3, 4]),
        ("others", 2, [0, 4]),
        ("inputs", 2, [1, 3]),
        ("inputs", 3, [1]),
    ],
)
def test_each_comparison_takes_its_photos(comparison, left_out, expected) -> None:
    assert np.flatnonzero(is_compared(comparison, 5, (1, 3), left_out)).tolist() == expected


def test_both_averages_agree_with_loops() -> None:
    """Subjects with different numbers of pictures and photos: where the two ways part."""
    subjects = np.array([0, 0, 0, 1, 1, 2])
    compared = RNG.random((6, 4)) < 0.6
    compared[:, 0] = True
    similar = RNG.random((6, 4))
    pairs = [similar[i, p] for i in range(6) for p in range(4) if compared[i, p]]
    per_subject = []
    for subject in range(3):
        pictures = [
            np.mean([similar[i, p] for p in range(4) if compared[i, p]])
            for i in range(6)
            if subjects[i] == subject
        ]
        per_subject.append(np.mean(pictures))
    sums = pair_sums(similar, compared)
    by_pairs, by_subjects = (average(sums, subjects, how) for how in ("pairs", "subjects"))
    assert by_pairs.mean == pytest.approx(np.mean(pairs), abs=1e-12)
    assert by_subjects.mean == pytest.approx(np.mean(per_subject), abs=1e-12)
    assert by_pairs.low <= by_pairs.mean <= by_pairs.high


def test_subjects_that_are_compared_with_nothing_do_not_count() -> None:
    sums = Sums(np.array([0.5, 0.0, 0.0]), np.array([1, 0, 0]))
    assert average(sums, np.array([0, 0, 1]), "subjects").mean == 0.5
    assert average(Sums(np.zeros(2), np.zeros(2, int)), np.array([0, 1]), "pairs") is None


def test_weighted_interval_agrees_with_the_delta_method() -> None:
    values, weights = RNG.normal(0.6, 0.1, 400), RNG.integers(1, 9, 400).astype(float)
    found = weighted_mean(values, weights)
    mean = np.average(values, weights=weights)
    error = math.sqrt(np.sum((weights * (values - mean)) ** 2)) / weights.sum()
    assert found.mean == pytest.approx(mean)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)


def test_text_scores_are_dot_products_with_the_own_prompt() -> None:
    pictures, texts = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    sums = text_sums(pictures, texts)
    assert sums.total == pytest.approx([sum(a * b) for a, b in zip(pictures, texts, strict=True)])
    assert sums.pairs.tolist() == [1] * 5


def test_diversity_is_the_mean_distance_of_all_pairs() -> None:
    features = np.array([angle(0), angle(60), angle(90)])
    pairs = [1 - math.cos(math.radians(each)) for each in (60, 90, 30)]
    assert mean_pairwise_distance(features) == pytest.approx(np.mean(pairs))
    assert mean_pairwise_distance(features[[0, 0, 0]]) == pytest.approx(0)


def scene(seed: int) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((120, 120), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(900, 611), (512, 512), (40, 64), (32, 32)])
def test_a_thumbnail_is_the_centre_square_by_the_slow_filter(size: tuple[int, int]) -> None:
    cells = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
    expected = np.asarray(fit_square(picture, COPY_SIDE), int)
    assert np.abs(thumbnail(picture).transpose(1, 2, 0) - expected).max() <= 3


def test_a_copy_is_found_also_when_moved_and_another_picture_is_none() -> None:
    first, second = scene(1), scene(2)
    moved = first.transform(first.size, Image.Transform.AFFINE, (1, 0, 5, 0, 1, -4))
    small = first.resize((77, 77))
    shown = np.stack([thumbnail(each) for each in (first, moved, small, second)])
    distances = copy_distances(shown, np.stack([thumbnail(scene(3)), thumbnail(first)]))
    assert distances[0] == 0
    assert distances[1] < 0.05
    assert distances[2] < 0.02
    assert distances[3] > COPY_DISTANCE


def test_copy_distance_agrees_with_a_search_over_windows() -> None:
    first, second = thumbnail(scene(4)) / 255, thumbnail(scene(5)) / 255
    inner = COPY_SIDE - 4
    errors = [
        np.sqrt(np.mean((first[:, 2:-2, 2:-2] - second[:, y : y + inner, x : x + inner]) ** 2))
        for y in range(5)
        for x in range(5)
    ]
    found = copy_distances(thumbnail(scene(4))[None], thumbnail(scene(5))[None])
    assert found == pytest.approx([min(errors)], abs=1e-9)
    assert shifted_distance(first[None], second[None]) == pytest.approx(found, abs=1e-9)


def test_threshold_is_below_every_distance_between_true_photos() -> None:
    near = scene(6).point(lambda value: min(255, value + 12))
    subjects = [
        np.stack([thumbnail(each) for each in (scene(6), near, scene(7))]),
        np.stack([thumbnail(scene(8))]),
    ]
    threshold = copy_threshold(subjects)
    assert threshold == pytest.approx(copy_distances(subjects[0][:1], subjects[0][1:])[0])
    assert threshold < COPY_DISTANCE
    assert copy_threshold(subjects[1:]) == COPY_DISTANCE


def test_pictures_without_any_subject_have_no_width_and_score_nothing() -> None:
    nothing, something = np.full((3, 1), np.nan), np.ones((2, 4))
    assert np.array_equal(cosines(nothing, something), np.zeros((3, 2)))
    assert np.array_equal(cosines(something, nothing), np.zeros((2, 3)))
