"""Patterns: what each must look like, point by point."""

import numpy as np
import pytest
import torch
from torch import Tensor

from jedi_toybox.parts import PATTERNS
from jedi_toybox.textures import EMBLEM_HALF, emblem_bits, pattern_color

RED, GREEN, BLUE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def paint(name: str, q: Tensor, seed: int = 7) -> Tensor:
    """(Q, 3) colours at points (Q, 3), of a pattern in red, green and blue."""
    count = len(q)

    def full(value: float) -> Tensor:
        return torch.full((1, count), value)

    def word(value: int) -> Tensor:
        return torch.full((1, count), value, dtype=torch.int32)

    colors = tuple(tuple(full(c) for c in color) for color in (RED, GREEN, BLUE))
    point = tuple(c[None] for c in q.unbind(-1))
    codes = tuple(word(value) for value in (seed, *emblem_bits(seed)))
    out = pattern_color(word(PATTERNS.index(name)), point, colors, codes)  # type: ignore[arg-type]
    return torch.stack(out, dim=-1)[0]


def points(count: int = 4000) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 8 - 4


@pytest.mark.parametrize("name", PATTERNS)
def test_colors_are_mixtures_of_the_three(name: str) -> None:
    rgb = paint(name, points())
    assert rgb.min() >= -1e-6
    torch.testing.assert_close(rgb.sum(dim=1), torch.ones(len(rgb)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(set(PATTERNS) - {"plain"}))
def test_every_pattern_shows_at_least_two_colors(name: str) -> None:
    rgb = paint(name, points() * (0.25 if name in ("emblem", "gradient") else 1))
    assert (rgb.amax(dim=0) > 0.6).sum() >= 2
    assert (rgb.mean(dim=0) > 0.05).sum() >= 2


def test_plain_is_the_first_color() -> None:
    assert (paint("plain", points()) == torch.tensor(RED)).all()


@pytest.mark.parametrize("name", ["stripes", "checks", "dots"])
def test_regular_patterns_repeat(name: str) -> None:
    q = points()
    step = torch.tensor([1.0, 1.0, 0.0]) if name == "checks" else torch.tensor([1.0, 0.0, 0.0])
    same = (paint(name, q) == paint(name, q + step)).all(dim=1)
    assert same.float().mean() > 0.999


def test_checks_alternate() -> None:
    q = torch.tensor([[0.5, 0.5, 0.5], [1.5, 0.5, 0.5], [1.5, 1.5, 0.5], [-0.5, 0.5, 0.5]])
    expected = torch.tensor(
        [RED if sum(int(np.floor(c)) for c in row) % 2 == 0 else GREEN for row in q.tolist()]
    )
    assert (paint("checks", q) == expected).all()


@pytest.mark.parametrize("depth", [0.0, 0.13, 0.25, 0.4])
def test_every_plane_cuts_dots(depth: float) -> None:
    q = points()
    q[:, 2] = depth
    assert 0.1 < (paint("dots", q)[:, 0] < 0.5).float().mean() < 0.7


def test_emblems_show_their_bitmap() -> None:
    seeds = range(40)
    bitmaps = set()
    for seed in seeds:
        low, high = (word & 0xFFFFFFFF for word in emblem_bits(seed))
        bits = [(low | high << 32) >> n & 1 for n in range(64)]
        cell = 2 * EMBLEM_HALF / 8
        centers = [
            ((n % 8 + 0.5) * cell - EMBLEM_HALF, (n // 8 + 0.5) * cell - EMBLEM_HALF, 0.5) for n in range(64)
        ]
        shown = paint("emblem", torch.tensor(centers), seed)
        assert (shown[:, 1] == torch.tensor(bits, dtype=torch.float32)).all()
        bitmaps.add(tuple(bits))
    assert len(bitmaps) > 25


def test_emblems_face_forward() -> None:
    q = points() * 0.2
    q[:, 2] = -q[:, 2].abs() - 0.01
    assert (paint("emblem", q) == torch.tensor(RED)).all()


def test_signs_are_symmetric_and_letters_upright() -> None:
    def rows(seed: int) -> list[int]:
        low, high = (word & 0xFFFFFFFF for word in emblem_bits(seed))
        return [(low | high << 32) >> 8 * row & 255 for row in range(8)]

    def mirrored(row: int) -> int:
        return int(f"{row:08b}"[::-1], 2)

    kinds = [all(row == mirrored(row) for row in rows(seed)) for seed in range(60)]
    assert 0.3 < np.mean(kinds) < 0.7
    for seed, symmetric in enumerate(kinds):
        if not symmetric:  # a letter leaves its top row and its left and right columns free
            assert rows(seed)[7] == 0
            assert all(row & 0b11000001 == 0 for row in rows(seed))


@pytest.mark.parametrize("name", ["fractal", "cellular", "marble", "wood", "speckle"])
def test_seeds_move_the_noise(name: str) -> None:
    q = points()
    assert (paint(name, q, 1) == paint(name, q, 1)).all()
    assert (paint(name, q, 1) - paint(name, q, 2)).abs().mean() > 0.02


@pytest.mark.parametrize("name", ["fractal", "cellular", "marble"])
def test_smooth_patterns_have_no_seams(name: str) -> None:
    q = points(20000)
    jump = (paint(name, q) - paint(name, q + 1e-4)).abs().amax(dim=1)
    assert (jump > 0.2).float().mean() < 2e-3
