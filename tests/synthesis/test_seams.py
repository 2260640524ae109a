"""Seams between tiles against layouts that are drawn here, and what must not be taken for one."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from jedi_diffusion.synthesis.seams import Tile, find_tiles, seam_gap

SIZE = 256


def canvas(seed: int = 0, size: int = SIZE) -> np.ndarray:
    """A gray background with a slope and noise, as floats."""
    noise = np.random.default_rng(seed).normal(0, 1.5, (size, size, 3))
    return 200 + noise + np.linspace(-8, 8, size)[:, None, None]


def as_picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def split(tile: Tile, rng: np.random.Generator, frame: int, depth: int = 0) -> list[Tile]:
    """A tile, or what one or two cuts along its whole height or width make of it."""
    left, top, right, bottom = tile
    axis = int(rng.integers(2))
    low, high = (left, right) if axis == 0 else (top, bottom)
    if depth == 3 or high - low < 120 or rng.random() < 0.2 * depth:
        return [tile]
    places = np.linspace(low, high, int(rng.integers(2, 4)) + (high - low > 200))[1:-1]
    cuts = [low, *(round(place + rng.uniform(-4, 4)) for place in places), high]
    parts = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        inner = (start + (frame if number else 0), end)
        part = (inner[0], top, inner[1], bottom) if axis == 0 else (left, inner[0], right, inner[1])
        parts += split(part, rng, frame, depth + 1)
    return parts


@pytest.mark.parametrize("frame", [0, 1, 5, 12])
@pytest.mark.parametrize("seed", range(8))
def test_tiles_are_those_that_were_drawn(seed: int, frame: int) -> None:
    rng = np.random.default_rng([seed, frame])
    tiles = split((0, 0, SIZE, SIZE), rng, frame)
    pixels = canvas(seed) * 0 + 255
    shades = rng.permutation(len(tiles)) * (200 / len(tiles)) + 30  # no two the same, none the frame's
    for (left, top, right, bottom), shade in zip(tiles, shades, strict=True):
        pixels[top:bottom, left:right] = canvas(seed)[top:bottom, left:right] - 200 + shade
        middle = np.s_[(2 * top + bottom) // 3 : bottom - 12, left + 12 : (left + 2 * right) // 3]
        pixels[middle] = rng.uniform(0, 255, 3)
    found = find_tiles(as_picture(pixels))
    assert len(found) == len(tiles)
    assert np.abs(np.sort(found, axis=0) - np.sort(tiles, axis=0)).max() <= 1


def test_tiles_of_large_pictures_and_blurred_seams_are_found() -> None:
    pixels = np.full((1024, 1024, 3), 180.0)
    pixels[:, 500:] = 150
    (left, right) = sorted(find_tiles(as_picture(pixels).filter(ImageFilter.GaussianBlur(2))))
    assert left[:2] == (0, 0)
    assert right[2:] == (1024, 1024)
    assert 492 <= left[2] <= 500 <= right[0] <= 508


def test_a_straight_edge_that_ends_before_its_tile_is_no_seam() -> None:
    pixels = canvas()
    pixels[:, 128:] -= 60
    pixels[100:140, 134:256] = 20  # 95% of the right tile
    tiles = [(0, 0, 128, SIZE), (128, 0, SIZE, SIZE)]
    assert find_tiles(as_picture(pixels)) == tiles
    pixels[100:140, 128:256] = 20
    assert find_tiles(as_picture(pixels))[0] == tiles[0]
    assert len(find_tiles(as_picture(pixels))) == 4


@pytest.mark.parametrize("frame", [1, 5, 12])
def test_a_frame_around_all_tiles_is_none_of_them(frame: int) -> None:
    pixels = canvas() * 0 + 255
    middle, far = 128, SIZE - frame
    spans = [(frame, middle - frame), (middle, far)]
    for number, (left, right) in enumerate(spans):
        for top, bottom in spans:
            pixels[top:bottom, left:right] = 90 + 40 * number + 0.3 * top
    found = find_tiles(as_picture(pixels))
    drawn = [(left, top, right, bottom) for left, right in spans for top, bottom in spans]
    assert len(found) == 4
    assert np.abs(np.array(sorted(found)) - drawn).max() <= 1


def test_what_is_no_seam() -> None:
    plain = as_picture(canvas())
    grass = as_picture(np.random.default_rng(0).uniform(0, 255, (SIZE, SIZE, 3)))
    shelf, shade = plain.copy(), canvas()
    ImageDraw.Draw(shelf).rectangle((30, 90, 220, 130), fill="brown")  # straight, but shorter than the side
    shade[:, 100:200] -= np.linspace(0, 120, 100)[None, :, None]
    shade[:, 200:] -= 120
    for picture in (plain, grass, shelf, as_picture(shade)):
        assert find_tiles(picture) == [(0, 0, SIZE, SIZE)]
    divided = canvas()
    divided[:, 128:] -= 40
    assert find_tiles(as_picture(divided)) == [(0, 0, 128, SIZE), (128, 0, SIZE, SIZE)]
    assert find_tiles(as_picture(divided), None) == [(0, 0, SIZE, SIZE)]


@pytest.mark.parametrize("size", [16, 17, 64])
def test_small_pictures_are_whole_or_divided(size: int) -> None:
    pixels = np.full((size, size, 3), 250.0)
    assert find_tiles(as_picture(pixels)) == [(0, 0, size, size)]
    pixels[size // 2 :] = 20
    assert find_tiles(as_picture(pixels)) == [(0, 0, size, size // 2), (0, size // 2, size, size)]


@pytest.mark.parametrize(
    ("span", "gap"),
    [
        ((10, 10, 40, 40), 10),  # the picture's own border is no seam
        ((20, 20, 50, 40), 0),
        ((20, 20, 53, 40), -3),
        ((58, 20, 90, 40), 3),
        ((0, 0, 30, 30), 20),
        ((51, 51, 54, 54), -4),  # on the frame
    ],
)
def test_the_gap_is_that_to_the_nearest_seam(span: Tile, gap: int) -> None:
    tiles = [(0, 0, 50, 50), (55, 0, 100, 50), (0, 55, 50, 100), (55, 55, 100, 100)]
    assert seam_gap(span, tiles, (100, 100)) == gap


def test_without_seams_there_is_no_gap() -> None:
    assert seam_gap((0, 3, 9, 100), [(0, 0, 100, 100)], (100, 100)) is None
