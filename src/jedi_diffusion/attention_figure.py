"""Figure 5 drawn: a point of a target, where coupled attention looks in the references, correspondences.

Letters: R references; h, w the grid of a picture's tokens at one resolution.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jedi_diffusion.pictures import WHITE, wrap

if TYPE_CHECKING:
    from jedi_diffusion.joint.record import AttentionMap, Correspondence

PAIRS = 12
"""Correspondences drawn for each resolution."""
SIDE = 176
"""Longer side of a picture in the figure, in pixels."""
GAP, APART, LINE, HEAD, BAR, RADIUS, POINTS = 8, 28, 16, 20, 10, 4, 12
FINER = 4
"""Marks are drawn so many times larger and reduced, which makes their edges smooth."""
MARK, INK, EDGE = (255, 40, 40), (30, 30, 30), (0, 0, 0)
COLOURS = np.array([(20, 11, 52), (101, 21, 110), (187, 55, 84), (249, 142, 9), (252, 255, 164)]) / 255
"""From no weight to the most, evenly apart; lightness grows all the way."""
MOST = "most in the row"
LEGEND = (
    "Left: how much the token at the point (red) looks at each token of the references; below a picture, how "
    "much at all of it. Right: pairs of tokens, in target and reference, that choose each other."
)

Colour = tuple[int, int, int]
Place = tuple[float, float]
Size = tuple[int, int]


class Line(NamedTuple):
    """A line between two places, in pixels."""

    start: Place
    end: Place
    colour: Colour


class Ring(NamedTuple):
    """A small circle."""

    place: Place
    colour: Colour


class Box(NamedTuple):
    """A rectangle from its top left to its bottom right."""

    start: Place
    end: Place
    colour: Colour


Mark = Line | Ring | Box


def attention_figure(
    target: Image.Image,
    references: Sequence[Image.Image],
    maps: Sequence[AttentionMap],
    point: tuple[float, float],
    title: str,
) -> Image.Image:
    """Return the figure of one target as RGB: the pictures, then a row for each resolution.

    target and references: RGB; the references are the first R pictures of the maps. point: (x, y), fractions
    from the target's top left.
    A row has, left, the token at the point and the weights that it gives to the tokens of each reference, on
    one scale for the row; right, lines between tokens of the target and those of references that answer them.
    """
    pictures = [_shown(each) for each in (target, *references)]
    rows = [_first_row(pictures, point), *(_row(pictures, each) for each in maps)]
    width = rows[0].width + 2 * GAP
    heads = wrap(title, _font(POINTS + 3), width - 2 * GAP)
    top = 2 * GAP + len(heads) * (LINE + 4)
    figure = Image.new("RGB", (width, top + sum(row.height + GAP for row in rows)), WHITE)
    for number, text in enumerate(heads):
        _write(figure, (GAP, GAP + number * (LINE + 4)), text, POINTS + 3)
    for row in rows:
        figure.paste(row, (GAP, top))
        top += row.height + GAP
    return figure


def heat_overlay(picture: Image.Image, weights: np.ndarray, most: float) -> Image.Image:
    """Return the picture in grey under the colours of `weights` (h, w), from 0 to `most`."""
    share = np.clip(weights / max(most, 1e-12), 0, 1).astype(np.float32)
    share = np.asarray(Image.fromarray(share).resize(picture.size, Image.Resampling.NEAREST))[..., None]
    grey = np.asarray(picture.convert("L"))[..., None] / 255
    cover = 0.45 + 0.35 * share
    mixed = (1 - cover) * grey + cover * colours(share[..., 0])
    return Image.fromarray((mixed * 255).round().astype(np.uint8))


def colours(share: np.ndarray) -> np.ndarray:
    """Return colours (..., 3) in 0..1 of shares 0..1."""
    places = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(share, places, COLOURS[:, channel]) for channel in range(3)], axis=-1)


def _first_row(pictures: Sequence[Image.Image], point: tuple[float, float]) -> Image.Image:
    """Return the target with its point and the references; on the right what the rows below show."""
    target, *references = pictures
    shown = ", ".join(f"{share:.2f}" for share in point)
    place = (point[0] * target.width, point[1] * target.height)
    marked = _marked(target, [Ring(place, MARK)])
    left = _strip([marked, *references], [f"target, point {shown}", *_names(references)], "")
    row = _beside(left, Image.new("RGB", left.size, WHITE))
    start, width = left.width + APART, min(left.width, 2 * SIDE)
    bar = colours(np.linspace(0, 1, width)[None].repeat(BAR, 0))
    row.paste(Image.fromarray((bar * 255).round().astype(np.uint8)), (start, HEAD))
    _write(row, (start, HEAD + BAR + 2), "0")
    _write(row, (start + width - int(_font().getlength(MOST)), HEAD + BAR + 2), MOST)
    for number, line in enumerate(wrap(LEGEND, _font(), row.width - start, lines=9)):
        _write(row, (start, HEAD + BAR + 2 + (number + 1.5) * LINE), line)
    return row.crop((0, HEAD, *row.size))


def _row(pictures: Sequence[Image.Image], each: AttentionMap) -> Image.Image:
    """Return one resolution: the point's token and its weights; the strongest correspondences."""
    target, *references = pictures
    count, (height, width) = len(references), each.size
    weights = [each.weights_of(number)[0].cpu().numpy() for number in range(each.weights.shape[1])]
    shares = np.array([part.sum() for part in weights])
    most = float(max(part.max() for part in weights[:count]))
    marked = _marked(target, [Box(*_corners(each.tokens[0], each.size, target.size), MARK)])
    heats = [heat_overlay(*both, most) for both in zip(references, weights[:count], strict=True)]
    own, others = shares[each.own], shares[count:].sum() - shares[each.own]
    beside = {"other targets": others, "captions": 1 - shares.sum()}
    labels = [", ".join([f"itself: {own:.1%}", *(f"{n}: {s:.1%}" for n, s in beside.items() if s > 1e-4)])]
    labels += [f"{name}: {share:.1%}" for name, share in zip(_names(references), shares, strict=False)]
    head = f"{width}x{height} tokens, {each.layers} layers; most on one token {most:.2%}"
    pairs = each.correspondences(range(count), PAIRS)
    strip = _strip(pictures, ["target", *_names(references)], _head_of_pairs(pairs))
    return _beside(_strip([marked, *heats], labels, head), _marked(strip, _lines(pairs, each, pictures)))


def _head_of_pairs(pairs: Sequence[Correspondence]) -> str:
    if len(pairs) == 1:
        return f"1 pair, weight {pairs[0].weight:.2%}"
    return f"{len(pairs)} pairs, weights {pairs[-1].weight:.2%} to {pairs[0].weight:.2%}"


def _lines(
    pairs: Sequence[Correspondence], each: AttentionMap, pictures: Sequence[Image.Image]
) -> list[Mark]:
    """Return a line for each pair on a strip of the target and the references; colours go down the target."""
    marks: list[Mark] = []
    step = _cell(pictures)[0] + GAP
    for number, pair in enumerate(sorted(pairs, key=lambda found: found.token)):
        red, green, blue = colorsys.hsv_to_rgb(number / len(pairs), 0.9, 1.0)
        colour = (round(255 * red), round(255 * green), round(255 * blue))
        ends = []
        for column, token, size in (
            (0, pair.token, each.size),
            (1 + pair.picture, pair.answer, each.size_of(pair.picture)),
        ):
            (left, top), (right, bottom) = _corners(token, size, pictures[column].size)
            ends.append(((left + right) / 2 + column * step, (top + bottom) / 2 + HEAD))
        marks += [Line(ends[0], ends[1], colour), *(Ring(end, colour) for end in ends)]
    return marks


def _corners(token: int, size: Size, shown: Size) -> tuple[Place, Place]:
    """Return top left and bottom right of a token of a grid (h, w), on a picture of (width, height)
    pixels.
    """
    row, column = divmod(token, size[1])
    across, down = shown[0] / size[1], shown[1] / size[0]
    return (column * across, row * down), ((column + 1) * across, (row + 1) * down)


def _marked(picture: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """Return the picture with marks that have a dark edge, so that they show on any ground."""
    layer = Image.new("RGBA", (picture.width * FINER, picture.height * FINER))
    draw = ImageDraw.Draw(layer)
    for mark in marks:
        _draw_mark(draw, mark, EDGE, 3.5)
        _draw_mark(draw, mark, mark.colour, 2)
    smooth = layer.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture.convert("RGBA"), smooth).convert("RGB")


def _draw_mark(draw: ImageDraw.ImageDraw, mark: Mark, colour: Colour, width: float) -> None:
    """One stroke of so many pixels, centred on the mark's outline."""
    stroke = round(FINER * width)
    out = width / 2  # outlines are drawn inwards
    if isinstance(mark, Line):
        draw.line([FINER * each for each in (*mark.start, *mark.end)], fill=colour, width=stroke)
    elif isinstance(mark, Ring):
        x, y = mark.place
        reach = RADIUS + out
        box = [FINER * each for each in (x - reach, y - reach, x + reach, y + reach)]
        draw.ellipse(box, outline=colour, width=stroke)
    else:
        (left, top), (right, bottom) = mark.start, mark.end
        box = [FINER * each for each in (left - out, top - out, right + out, bottom + out)]
        draw.rectangle(box, outline=colour, width=stroke)


def _strip(pictures: Sequence[Image.Image], labels: Sequence[str], head: str) -> Image.Image:
    """Return pictures side by side in cells of one size, a label below each, a head above all."""
    width, height = _cell(pictures)
    strip = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, HEAD + height + LINE + 2), WHITE)
    _write(strip, (0, 0), wrap(head, _font(), strip.width, lines=1)[0] if head else "")
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left = number * (width + GAP)
        strip.paste(picture, (left, HEAD))
        _write(strip, (left, HEAD + height + 2), wrap(label, _font(), width, lines=1)[0])
    return strip


def _cell(pictures: Sequence[Image.Image]) -> Size:
    """Return width and height that hold each of the pictures."""
    return max(each.width for each in pictures), max(each.height for each in pictures)


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    row = Image.new("RGB", (left.width + APART + right.width, left.height), WHITE)
    row.paste(left, (0, 0))
    row.paste(right, (left.width + APART, 0))
    return row


def _shown(picture: Image.Image) -> Image.Image:
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _names(references: Sequence[Image.Image]) -> list[str]:
    if len(references) == 1:
        return ["reference"]
    return [f"reference {number}" for number in range(1, len(references) + 1)]


def _font(points: int = POINTS) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=points)


def _write(picture: Image.Image, place: Place, text: str, points: int = POINTS) -> None:
    ImageDraw.Draw(picture).text(place, text, fill=INK, font=_font(points))
