"""Subjects of every noun: within their slots, on the ground, of unit size, pure, all different."""

from collections import Counter

import numpy as np
import pytest

from jedi_diffusion.errors import UsageError
from jedi_toybox.assembly import (
    bounding_box,
    direction_angles,
    euler_angles,
    mirrored,
    normalize,
    product,
    rotation_matrix,
    turned,
)
from jedi_toybox.builder import SLOTS
from jedi_toybox.parts import KINDS, PATTERNS, Material, Part
from jedi_toybox.subjects import CLASSES, HELD_OUT_CLASSES, THING_NOUNS, build_subject

NOUNS = (*CLASSES, *HELD_OUT_CLASSES, *THING_NOUNS)


def build(noun: str, seed: int) -> list[Part]:
    return build_subject(noun, np.random.default_rng(seed))


def surface_points(part: Part, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) points on or in a part, written with numpy alone; boxes and rims by their extreme points."""
    size = np.array(part.size)
    if part.kind == "ellipsoid":
        unit = rng.normal(size=(count, 3))
        local = unit / np.linalg.norm(unit, axis=1, keepdims=True) * size
    elif part.kind == "box":
        local = rng.choice([-1.0, 1.0], size=(count, 3)) * size
    else:
        angle, top = rng.uniform(0, 2 * np.pi, count), rng.random(count) < 0.5
        radius = np.where(top, part.taper, 1.0)
        local = (
            np.stack([np.cos(angle) * radius, np.where(top, 1.0, -1.0), np.sin(angle) * radius], axis=1)
            * size
        )
    return local @ numpy_rotation(part.rotation).T + np.array(part.center)


def numpy_rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """Rz Ry Rx as a product of three matrices."""
    x, y, z = np.radians(angles)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def random_part(rng: np.random.Generator) -> Part:
    center, size, turn = rng.normal(size=3), rng.uniform(0.05, 1, 3), rng.uniform(-180, 180, 3)
    kind = KINDS[int(rng.integers(3))]
    return Part(kind, tuple(center), tuple(size), Material(), tuple(turn), float(rng.random()))


def test_nouns_are_many_and_splits_disjoint() -> None:
    assert len(CLASSES) >= 26
    assert len(HELD_OUT_CLASSES) >= 5
    assert len(set(NOUNS)) == len(NOUNS)
    assert all(noun.isalpha() and noun.islower() for noun in NOUNS)


@pytest.mark.parametrize("noun", NOUNS)
def test_five_hundred_subjects_keep_the_rules(noun: str) -> None:
    for seed in range(500):
        parts = build(noun, seed)
        counts = Counter(part.kind for part in parts)
        assert parts
        assert all(counts[kind] <= SLOTS[kind] for kind in KINDS)
        low, high = np.array(bounding_box(parts))
        assert low[1] == pytest.approx(0.0, abs=1e-9)
        assert (high - low).max() == pytest.approx(1.0, abs=1e-9)
        assert (low + high)[[0, 2]] == pytest.approx([0.0, 0.0], abs=1e-9)
        for part in parts:
            assert min(part.size) > 0
            assert 0 <= part.taper <= 1
            material = part.material
            assert material.pattern in PATTERNS
            assert 0 <= material.gloss <= 1
            assert 0 <= material.seed < 2**31
            assert all(0 <= value <= 1 for color in material.colors for value in color)


@pytest.mark.parametrize("noun", NOUNS)
def test_a_subject_is_a_pure_function_of_its_generator(noun: str) -> None:
    assert build(noun, 3) == build(noun, 3)


@pytest.mark.parametrize("noun", NOUNS)
def test_no_two_of_200_subjects_are_equal_or_of_one_shape(noun: str) -> None:
    subjects = [build(noun, seed) for seed in range(200)]
    shapes = {
        tuple((part.kind, part.center, part.size, part.rotation) for part in parts) for parts in subjects
    }
    assert len(shapes) == 200


def test_colours_do_not_follow_from_the_noun() -> None:
    """The spread of mean colours between nouns is little beside the spread within one."""
    colors = np.array(
        [
            [np.mean([p.material.colors[0] for p in build(noun, seed)], axis=0) for seed in range(60)]
            for noun in CLASSES
        ]
    )
    between = colors.mean(axis=1).var(axis=0)
    within = colors.var(axis=1).mean(axis=0)
    # dark eyes and tyres, which some classes have more of, leave a little
    assert (between < 0.12 * within).all()


def test_nearly_half_of_the_parts_are_plain_and_every_pattern_occurs() -> None:
    patterns = Counter(
        part.material.pattern for noun in NOUNS for seed in range(40) for part in build(noun, seed)
    )
    assert 0.4 < patterns["plain"] / patterns.total() < 0.62
    assert all(patterns[name] / patterns.total() > 0.012 for name in PATTERNS)


def test_an_unknown_noun_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="unicorn"):
        build("unicorn", 0)


def test_rotations_agree_with_numpy_and_invert() -> None:
    rng = np.random.default_rng(0)
    for angles in [tuple(rng.uniform(-180, 180, 3)) for _ in range(50)] + [
        (30.0, 90.0, 20.0),
        (10.0, -90.0, 0.0),
    ]:
        matrix = rotation_matrix(angles)
        np.testing.assert_allclose(matrix, numpy_rotation(angles), atol=1e-12)
        np.testing.assert_allclose(rotation_matrix(euler_angles(matrix)), matrix, atol=1e-7)
    other = rotation_matrix((10.0, 20.0, 30.0))
    np.testing.assert_allclose(product(other, matrix), np.array(other) @ np.array(matrix), atol=1e-12)


@pytest.mark.parametrize("direction", [(0, 1, 0), (0, -2, 0), (1, 0, 0), (0, 0, -3), (0.3, -0.5, 0.2)])
def test_direction_angles_turn_the_y_axis(direction: tuple[float, float, float]) -> None:
    axis = np.array(rotation_matrix(direction_angles(direction)))[:, 1]
    np.testing.assert_allclose(axis, np.array(direction) / np.linalg.norm(direction), atol=1e-12)


def test_bounding_box_fits_points_of_the_surface() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        part = random_part(rng)
        points = surface_points(part, 20000, rng)
        low, high = np.array(bounding_box([part]))
        assert (points >= low - 1e-9).all()
        assert (points <= high + 1e-9).all()
        np.testing.assert_allclose(points.min(axis=0), low, atol=0.02)
        np.testing.assert_allclose(points.max(axis=0), high, atol=0.02)


def test_turning_and_mirroring_move_the_surface_itself() -> None:
    rng = np.random.default_rng(2)
    part, turn = random_part(rng), (20.0, -50.0, 110.0)
    there, again = np.random.default_rng(3), np.random.default_rng(3)
    points = surface_points(part, 100, there)
    np.testing.assert_allclose(
        surface_points(turned([part], turn)[0], 100, again), points @ numpy_rotation(turn).T
    )
    low, high = np.array(bounding_box([part]))
    mirror_low, mirror_high = np.array(bounding_box([mirrored(part)]))
    np.testing.assert_allclose(mirror_low, [-high[0], low[1], low[2]])
    np.testing.assert_allclose(mirror_high, [-low[0], high[1], high[2]])


def test_normalize_keeps_proportions() -> None:
    rng = np.random.default_rng(4)
    parts = [random_part(rng) for _ in range(5)]
    low, high = np.array(bounding_box(parts))
    new_low, new_high = np.array(bounding_box(normalize(parts)))
    np.testing.assert_allclose(new_high - new_low, (high - low) / (high - low).max())
