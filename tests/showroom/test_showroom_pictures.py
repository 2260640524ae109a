"""Cameras, places and compositions, against projections written out by hand."""

import numpy as np
import pytest

from jedi_showroom.composing import SHADOW, Look, compose, recolored
from jedi_showroom.places import Panorama, Plain, Room
from jedi_showroom.toybox_places import toybox_backgrounds
from jedi_showroom.views import FLOOR, Framing, sample
from jedi_toybox import clutter
from jedi_toybox.scenes import SCENES

from .conftest import square

FRAMING = Framing(scale=0.7, right=0.1, up=-0.2, elevation=0.3, tangent=0.24)


def projected(point: np.ndarray, framing: Framing, side: int) -> tuple[float, float]:
    """Row and column of a world point, by a pinhole camera."""
    sine, cosine = np.sin(framing.elevation), np.cos(framing.elevation)
    x, y, z = point - np.array([0.0, sine, -cosine]) / framing.tangent
    up, forward = cosine * y + sine * z, -sine * y + cosine * z
    across = x / forward * framing.scale / framing.tangent + framing.right
    upward = up / forward * framing.scale / framing.tangent + framing.up
    return (1 - upward) / 2 * side - 0.5, (1 + across) / 2 * side - 0.5


@pytest.mark.parametrize("point", [(0.0, 0.0, 0.0), (0.4, FLOOR, -0.3), (-0.5, 0.6, 0.2)])
def test_a_pixels_ray_passes_through_the_point_that_it_shows(point: tuple[float, float, float]) -> None:
    side = 200
    row, column = projected(np.array(point), FRAMING, side)
    ray = sample(FRAMING.directions(side), np.array(row), np.array(column))
    apart = np.array(point) - FRAMING.position
    assert np.allclose(np.cross(ray, apart) / np.linalg.norm(apart), 0, atol=1e-3)
    assert ray @ apart > 0


def test_a_cut_outs_middle_lies_where_the_framing_says() -> None:
    row, column = projected(np.zeros(3), FRAMING, 128)
    assert (row, column) == pytest.approx((1.2 / 2 * 128 - 0.5, 1.1 / 2 * 128 - 0.5))


def test_a_panoramas_horizon_lies_where_level_rays_meet_the_picture() -> None:
    radiance = np.zeros((1024, 2048, 3))
    radiance[:512] = 1.0  # the upper half is bright
    picture = Panorama("x", radiance).background(FRAMING, 128, np.random.default_rng(0))
    bright = picture.mean(axis=(1, 2)) > picture.mean()
    horizon = projected(np.array([0.0, FRAMING.position[1], 1e6]), FRAMING, 128)[0]
    assert abs(int(bright.sum()) - (horizon + 0.5)) <= 2


def test_a_room_shows_its_wall_above_and_its_floor_below() -> None:
    room = Room("x", np.full((4, 4, 3), (1.0, 0.0, 0.0)), np.full((4, 4, 3), (0.0, 0.0, 1.0)))
    picture = room.background(FRAMING, 64, np.random.default_rng(1))
    assert picture[0, :, 2].min() > 0.3
    assert picture[0, :, 0].max() == 0
    assert picture[-1, :, 0].min() > 0.3
    assert picture[-1, :, 2].max() == 0


def test_backgrounds_are_functions_of_their_arguments() -> None:
    rng = np.random.default_rng(2)
    for place in (
        Plain(),
        Panorama("x", rng.random((8, 16, 3))),
        Room("x", rng.random((4, 4, 3)), rng.random((4, 4, 3))),
    ):
        first, again = (place.background(FRAMING, 16, np.random.default_rng(5)) for _ in range(2))
        assert np.array_equal(first, again)
        assert first.shape == (16, 16, 3)
        assert first.min() >= 0
        assert first.max() <= 1


def test_a_composition_keeps_the_background_beside_the_subject_and_darkens_it_in_the_shadow() -> None:
    centred = Framing(1.0, 0.0, 0.0, 0.25, 0.24)
    background = np.full((32, 32, 3), 0.5)
    made = compose(square(100), centred, background, np.random.default_rng(0))
    assert np.all(made.picture[:7, :] == 128)
    assert np.all(made.picture[25:27] == round(255 * 0.5 * (1 - SHADOW)))
    expected = np.zeros((32, 32), bool)
    expected[8:24, 8:24] = True
    assert np.array_equal(made.mask, expected)


def test_recolouring_turns_hues_and_keeps_brightness() -> None:
    rgba = np.zeros((1, 1, 4), np.uint8)
    rgba[0, 0] = (140, 120, 100, 255)
    turned = recolored(rgba, Look(np.pi, 1.0))
    weights = np.array([0.299, 0.587, 0.114])
    assert turned[0, 0, :3] @ weights == pytest.approx(rgba[0, 0, :3] @ weights, abs=1.5)
    assert turned[0, 0, 0] < turned[0, 0, 2]
    assert np.abs(recolored(rgba, Look(0.0, 1.0)).astype(int) - rgba).max() <= 1


def test_scenes_of_which_none_has_clutter_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clutter, "clutter", lambda scene, rng: [])
    shots = [(scene, FRAMING, seed) for seed, scene in enumerate(SCENES[:2])]
    for pixels in toybox_backgrounds(shots, 16, "cpu", compiled=False):
        assert pixels.shape == (16, 16, 3)
        assert np.isfinite(pixels).all()
