"""The drawn figure: colours that grow with the weight, blocks and marks in the right places, any counts."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion.attention_figure import GAP, HEAD, MARK, SIDE, attention_figure, colours, heat_overlay
from jedi_diffusion.joint.record import AttentionMap

GREY = (128, 128, 128)


def maps_of(references, answers, size=(4, 4), targets=1):
    """All tokens of the target look at one token of each reference, at answers[r], the first the most."""
    tokens = size[0] * size[1]
    weights = torch.full((1 + tokens, references + targets, *size), 0.001)
    for number, (row, column) in enumerate(answers):
        weights[:, number, row, column] = 1.0 / (1 + number)
    weights /= weights.sum((1, 2, 3), keepdim=True)
    return AttentionMap(size, (5, *range(tokens)), weights, own=references, layers=2, steps=3)


def draw(references, maps, point=(0.4, 0.3), size=(64, 64), title="Where it looks"):
    pictures = [Image.new("RGB", size, GREY) for _ in range(references)]
    return attention_figure(Image.new("RGB", size, GREY), pictures, maps, point, title)


def test_lightness_grows_with_the_weight() -> None:
    shades = [
        heat_overlay(Image.new("RGB", (4, 4), GREY), np.full((2, 2), w), 1.0) for w in np.linspace(0, 1, 9)
    ]
    lightness = [shade.convert("L").getpixel((0, 0)) for shade in shades]
    assert all(low < high for low, high in pairwise(lightness))
    assert colours(np.array([0.0, 1.0])).tolist() == pytest.approx(
        np.array([[20, 11, 52], [252, 255, 164]]) / 255
    )


def test_weights_lie_over_their_tokens_and_the_picture_shows_through() -> None:
    weights = np.zeros((2, 4))
    weights[1, 2] = 0.3
    black, white = (
        heat_overlay(Image.new("RGB", (80, 40), shade), weights, 0.3) for shade in ("black", "white")
    )
    over = np.asarray(black.convert("L")).astype(int)
    block = np.zeros((40, 80), bool)
    block[20:40, 40:60] = True
    assert over[block].min() > over[~block].max()
    assert (np.asarray(white.convert("L")).astype(int) > over + 20).all()
    assert len(set(over[block])) == len(set(over[~block])) == 1
    nothing = heat_overlay(Image.new("RGB", (8, 8), GREY), np.zeros((2, 2)), 0.0)
    assert len(nothing.getcolors()) == 1


def test_each_reference_has_its_own_heat_on_one_scale() -> None:
    """Left in the row: reference 1 has the lightest block, in row 1, column 2; reference 2 a darker one."""
    figure = np.asarray(draw(2, [maps_of(2, [(1, 2), (3, 0)])]).convert("L")).astype(int)
    top = figure.shape[0] - GAP - 18 - SIDE
    cells = [
        figure[top : top + SIDE, left : left + SIDE] for left in (GAP + n * (SIDE + GAP) for n in (1, 2))
    ]
    block = SIDE // 4
    means = [cell.reshape(4, block, 4, block).mean((1, 3)) for cell in cells]
    assert [np.unravel_index(mean.argmax(), (4, 4)) for mean in means] == [(1, 2), (3, 0)]
    assert means[0].max() > means[1].max() > means[0].min()


def test_the_point_and_its_token_are_marked() -> None:
    figure = np.asarray(draw(1, [maps_of(1, [(0, 0)])], point=(0.4, 0.3))).astype(int)
    red = (np.abs(figure - MARK).sum(-1) < 60)[:, GAP : GAP + SIDE]
    first, second = red[: figure.shape[0] - GAP - 18 - SIDE - HEAD], red[figure.shape[0] - GAP - 18 - SIDE :]
    rows, columns = np.nonzero(first)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(0.4 * SIDE, abs=2)
    assert rows.max() - rows.min() < 20
    rows, columns = np.nonzero(second)  # token 5 of 4 x 4: second row and column
    assert (columns.min(), columns.max()) == pytest.approx((SIDE / 4, SIDE / 2), abs=3)
    assert (rows.min(), rows.max()) == pytest.approx((SIDE / 4, SIDE / 2), abs=3)


def test_a_line_joins_the_pair() -> None:
    """One pair only, since all tokens look at one: its first token, and the token in row 3, column 3."""
    figure = np.asarray(draw(1, [maps_of(1, [(3, 3)])]).convert("HSV")).astype(int)
    right = figure[figure.shape[0] - GAP - 18 - SIDE : -GAP - 18, -(2 * SIDE + 2 * GAP) :]
    vivid = (right[..., 1] > 200) & (right[..., 2] > 200)
    rows, columns = np.nonzero(vivid)
    eighth = SIDE / 8
    assert (rows.min(), rows.max()) == pytest.approx((eighth, 7 * eighth), abs=8)
    assert (columns.min(), columns.max()) == pytest.approx((eighth, SIDE + GAP + 7 * eighth), abs=8)


def test_pictures_have_grids_and_shapes_of_their_own() -> None:
    """A wide reference of 2 x 6 tokens beside a square target of 4 x 4; captions get a fifth."""
    weights = torch.zeros(17, 2, 4, 6)
    weights[:, 0, 1, 5], weights[:, 1, :4, :4] = 0.4, 0.4 / 16
    maps = AttentionMap((4, 4), (5, *range(16)), weights, 1, 2, 3, sizes=((2, 6), (4, 4)))
    assert maps.correspondences([0], 3) == [(0, 0, 2 * 6 - 1, pytest.approx(0.4))]
    target, wide = Image.new("RGB", (64, 64), GREY), Image.new("RGB", (96, 32), GREY)
    figure = attention_figure(target, [wide], [maps], (0.4, 0.3), "Where it looks")
    pixels = np.asarray(figure.convert("L")).astype(int)
    top = pixels.shape[0] - GAP - 18 - SIDE
    heat = pixels[top : top + SIDE // 3 - 1, GAP + SIDE + GAP :][:, : SIDE - 1]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert row > heat.shape[0] // 2
    assert column > heat.shape[1] * 5 // 6
    assert (pixels[top + SIDE // 3 + 3 : top + SIDE - 3, GAP + SIDE + GAP :][:, : SIDE - 3] == 255).all()
    vivid = np.asarray(figure.convert("HSV")).astype(int)[:, -(2 * SIDE + 2 * GAP) :]
    _, columns = np.nonzero((vivid[..., 1] > 200) & (vivid[..., 2] > 200))
    assert columns.max() == pytest.approx(SIDE + GAP + 11 * SIDE / 12, abs=8)


def test_the_figure_grows_with_references_and_resolutions() -> None:
    one, rows = draw(1, [maps_of(1, [(0, 0)])]), draw(1, [maps_of(1, [(0, 0)])] * 3)
    many = draw(16, [maps_of(16, [(0, 0)] * 16, targets=2)], title="a robot on the beach " * 20)
    assert one.width == rows.width
    assert (rows.height - one.height) % 2 == 0
    assert rows.height > one.height + 2 * SIDE
    assert many.width > 30 * SIDE
    flat = draw(1, [maps_of(1, [(0, 0)], size=(2, 4))], size=(64, 32))
    assert flat.width == one.width
    assert flat.height < one.height
