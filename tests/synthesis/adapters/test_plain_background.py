"""Classical segmentation against discs whose outlines are known."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.synthesis_models import disc_mask

pytest.importorskip("skimage")

from jedi_diffusion.synthesis.adapters.plain_background import (
    PlainBackgroundDetector,
    PlainBackgroundSegmenter,
    background_distance,
)
from jedi_diffusion.vision.detection import Box

SIZE = 120
DISCS = ((0.25, 0.3, 0.12), (0.7, 0.25, 0.15), (0.6, 0.75, 0.1), (0.98, 0.5, 0.1))
COLORS = ((200, 40, 40), (40, 160, 60), (30, 30, 30), (90, 80, 200))


def collage(background: int, seed: int = 0) -> tuple[Image.Image, list[np.ndarray]]:
    """Discs on a slope of gray with noise, and their masks."""
    noise = np.random.default_rng(seed).normal(0, 1.5, (SIZE, SIZE, 3))
    pixels = background + noise + np.linspace(-8, 8, SIZE)[:, None, None]
    masks = [disc_mask(SIZE, *disc) for disc in DISCS]
    for mask, color in zip(masks, COLORS, strict=True):
        pixels[mask] = color
        hole = mask & disc_mask(SIZE, 0.25, 0.3, 0.04)
        pixels[hole] = background  # what is enclosed belongs to the thing
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), masks


@pytest.mark.parametrize("background", [230, 170])
def test_finds_and_outlines_what_is_there(background: int) -> None:
    picture, masks = collage(background)
    (found,) = PlainBackgroundDetector().detect([picture], ["disc"])
    assert len(found) == len(DISCS)
    (outlines,) = PlainBackgroundSegmenter().segment([picture], [[each.box for each in found]])
    for outline in outlines:
        best = max(masks, key=lambda mask: int((mask & outline).sum()))
        assert (best & outline).sum() / (best | outline).sum() > 0.97
    assert all(0.5 < each.score < 1 for each in found)


def test_every_tile_has_a_background_of_its_own() -> None:
    rng = np.random.default_rng(0)
    pixels = 220 + rng.normal(0, 1.5, (SIZE, SIZE, 3))
    pixels[:, 60:] -= (170, 160, 170)
    pixels[64:, :] *= 0.8
    pixels[60:64, :] = 255  # a frame between two rows
    masks = [disc_mask(SIZE, x, y, 0.12) for x, y in ((0.25, 0.25), (0.75, 0.2), (0.3, 0.8), (0.75, 0.75))]
    for mask in masks:
        pixels[mask] = (200, 40, 40)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    (found,) = PlainBackgroundDetector().detect([picture], ["disc"])
    (outlines,) = PlainBackgroundSegmenter().segment([picture], [[each.box for each in found]])
    assert len(outlines) == 4
    for outline in outlines:
        assert max((mask & outline).sum() / (mask | outline).sum() for mask in masks) > 0.97


def test_an_empty_picture_holds_nothing() -> None:
    noise = np.random.default_rng(0).normal(200, 1.5, (64, 64, 3)).astype(np.uint8)
    picture = Image.fromarray(noise)
    assert PlainBackgroundDetector().detect([picture], ["disc"]) == [[]]
    (masks,) = PlainBackgroundSegmenter().segment([picture], [[Box(3, 3, 20, 20)]])
    assert not masks[0].any()


def test_the_background_is_told_from_a_slope() -> None:
    rows = np.linspace(40, 60, 50)[:, None, None] * np.ones((1, 50, 1))
    lab = np.concatenate([rows, np.zeros((50, 50, 2))], axis=2)
    lab[10:20, 10:20] += (0, 30, 40)
    distance = background_distance(lab)
    assert np.allclose(distance[10:20, 10:20], 50, atol=0.5)
    distance[10:20, 10:20] = 0
    assert distance.max() < 0.5
