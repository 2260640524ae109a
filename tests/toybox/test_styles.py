"""Styles: shape, range, purity, and what makes each unmistakable."""

import pytest
import torch
from torch import Tensor

from jedi_toybox.styles import STYLES, gray


def pictures(size: int, count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """A coloured disc on a background of slopes and noise, the disc's outline, and seeds."""
    generator = torch.Generator().manual_seed(7)
    steps = torch.linspace(-1, 1, size)
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    radius = torch.sqrt(u * u + v * v)
    ground = torch.stack([0.5 + 0.4 * u, 0.5 + 0.4 * v, 0.4 - 0.3 * u]) + 0.1 * torch.rand(
        3, size, size, generator=generator
    )
    disc = torch.tensor([0.9, 0.2, 0.15])[:, None, None].expand_as(ground)
    picture = torch.where(radius < 0.6, disc, ground).clamp(0, 1)
    edges = ((radius - 0.6).abs() < 1.5 / size).float()[None]
    return (
        torch.stack([picture.roll(k, 0) for k in range(count)]),
        edges.expand(count, 1, size, size),
        torch.arange(count, dtype=torch.int32) + 3,
    )


@pytest.mark.parametrize("size", [64, 128, 100])
@pytest.mark.parametrize("name", STYLES)
def test_style_keeps_shape_and_range_and_is_pure(name: str, size: int):
    given = pictures(size)
    before = [t.clone() for t in given]
    out = STYLES[name](*given)
    assert out.shape == given[0].shape
    assert torch.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    assert torch.equal(out, STYLES[name](*given))


@pytest.mark.parametrize("name", STYLES)
def test_style_of_a_picture_does_not_depend_on_the_batch(name: str):
    given = pictures(64)
    together = STYLES[name](*given)
    for row in range(3):
        alone = STYLES[name](*(t[row : row + 1] for t in given))
        torch.testing.assert_close(alone, together[row : row + 1], rtol=0, atol=1e-6)


def test_styles_differ_from_the_picture_and_from_each_other():
    assert len(STYLES) >= 7
    given = pictures(64)
    outs = [given[0], *(style(*given) for style in STYLES.values())]
    for i, one in enumerate(outs):
        for other in outs[:i]:
            assert (one - other).abs().mean() > 0.03


def test_black_and_white_is_gray():
    out = STYLES["a black and white photo of"](*pictures(64))
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out[:, 0], out[:, 2])


@pytest.mark.parametrize("name", ["an old photo of", "a blueprint of"])
def test_toned_styles_forget_the_colors(name: str):
    given, edges, seeds = pictures(64, 1)
    level = gray(given).expand_as(given)
    torch.testing.assert_close(
        STYLES[name](level, edges * 1, seeds)[..., 20:40, 24:40],
        STYLES[name](given, edges * 1, seeds)[..., 20:40, 24:40],
        rtol=0,
        atol=0.02,
    )
    red, _, blue = STYLES[name](given, edges, seeds).mean((2, 3))[0]
    assert (red > blue + 0.1) if name == "an old photo of" else (blue > red + 0.1)


@pytest.mark.parametrize(
    "name", ["a pixel art picture of", "a watercolor painting of", "a comic drawing of", "a mosaic of"]
)
def test_colored_styles_keep_the_subject_red(name: str):
    given, edges, seeds = pictures(64, 1)
    red, green, blue = STYLES[name](given, edges, seeds)[0, :, 24:40, 24:40].mean((1, 2))
    assert red > green + 0.25
    assert red > blue + 0.25


@pytest.mark.parametrize("size", [64, 128])
def test_pixel_art_is_piecewise_constant(size: int):
    out = STYLES["a pixel art picture of"](*pictures(size))
    step = size // 32
    blocks = out.unfold(2, step, step).unfold(3, step, step)
    assert torch.equal(blocks, blocks[..., :1, :1].expand_as(blocks))
    assert len(out.unique()) <= 6


def test_seeds_move_what_is_random():
    given, edges, seeds = pictures(64)
    for name in ("a watercolor painting of", "an old photo of", "a mosaic of"):
        assert (
            STYLES[name](given, edges, seeds) - STYLES[name](given, edges, seeds + 1)
        ).abs().mean() > 0.005
