"""Straight seams between the pictures that a collage may be put together of, and the tiles between seams.

A text-to-image model draws some collages on one background and others as tiles side by side, with or without
a frame between them. Where a tile's edge cuts something off, only the seam tells. The paper says nothing of
it. Letters: H, W pixels; B blocks of a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SEAM = 0.8
"""Part of a line's length over which colors must step, for it to be a seam."""
STEP = 4
"""Colors step where a channel changes by more, in steps of 255."""
BLOCK = 64
"""Blocks of a side. Colors are compared as means over a block of the line, against noise."""
REACH = 128
"""Colors are compared this part of a side apart (2 pixels at 256), so that a blurred seam is one step."""
WIDEST = 4
"""Steps over more columns than this (in reaches) are a texture or a shade, not a seam."""
LEAST = 1 / 8
"""Strips narrower than this part of a side are frames between tiles."""

Tile = tuple[int, int, int, int]
Steps = NDArray[np.bool_]


def find_tiles(picture: Image.Image, seam: float | None = SEAM) -> list[Tile]:
    """Return the tiles (left, top, right, bottom) of an RGB picture: the whole of it where no seam divides
    it.

    seam: see SEAM; none looks for none. A seam runs along the whole height or width of what it divides, so
    that rows may have different numbers of tiles. Seams between tiles of one color are not seen, nor seams
    in textures.
    """
    whole = (0, 0, *picture.size)
    if seam is None:
        return [whole]
    longest = max(picture.size)
    block, half = max(1, longest // BLOCK), max(1, round(longest / REACH / 2))
    upright, level = picture.reduce((1, block)), picture.reduce((block, 1))
    steps = (
        _steps(np.asarray(upright, np.int16), half),
        _steps(np.asarray(level, np.int16).transpose(1, 0, 2), half),
    )
    return _divide(whole, whole, steps, block, half, max(1, round(LEAST * longest)), seam)


def seam_gap(span: Tile, tiles: Sequence[Tile], size: tuple[int, int]) -> int | None:
    """Pixels from what spans (left, top, right, bottom) to the nearest seam, below 0 where it reaches over.

    Seams are the edges of the tile in which most of it lies, but for those of the picture of `size` (W, H);
    None where there are none.
    """
    left, top, right, bottom = max(tiles, key=lambda tile: _shared(span, tile))
    sides = (
        (span[0] - left, left > 0),
        (span[1] - top, top > 0),
        (right - span[2], right < size[0]),
        (bottom - span[3], bottom < size[1]),
    )
    return min((gap for gap, is_seam in sides if is_seam), default=None)


def _shared(one: Tile, other: Tile) -> int:
    """Pixels that two rectangles share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


def _steps(pixels: NDArray[np.int16], half: int) -> Steps:
    """(B, W, 3) -> (B, W): whether colors `half` pixels to both sides of a column differ."""
    found = np.zeros(pixels.shape[:2], dtype=np.bool_)
    far = np.abs(pixels[:, 2 * half :] - pixels[:, : -2 * half]).max(axis=2)
    found[:, half : half + far.shape[1]] = far > STEP
    return found


def _divide(
    tile: Tile, whole: Tile, steps: tuple[Steps, Steps], block: int, half: int, least: int, seam: float
) -> list[Tile]:
    left, top, right, bottom = tile
    for axis, (first, last, low, high) in enumerate(((left, right, top, bottom), (top, bottom, left, right))):
        inside = steps[axis][-(-low // block) : high // block, first:last]
        lines = inside.mean(axis=0)
        # A straight edge of a thing ends before its tile does. At the picture's border there may be a frame.
        lines[(low > 0) & ~inside[0] | (high < whole[3 - axis]) & ~inside[-1]] = 0
        pieces = [(first + start, first + end) for start, end in _between(lines, half, seam)]
        wide = [(start, end) for start, end in pieces if end - start >= least]
        if not wide or wide == [(first, last)]:
            continue
        parts = [(a, low, b, high) if axis == 0 else (low, a, high, b) for a, b in wide]
        return [each for part in parts for each in _divide(part, whole, steps, block, half, least, seam)]
    return [tile]


def _between(lines: NDArray[np.float64], half: int, seam: float) -> list[tuple[int, int]]:
    """(start, end) of the strips between the seams, from the part of each line over which colors step."""
    high = lines > seam
    high[:half] = high[len(high) - half :] = False  # there the outside is looked at
    edges = np.flatnonzero(np.diff(high, prepend=False, append=False))
    cuts = [0]
    for start, end in edges.reshape(-1, 2).tolist():
        beside = np.r_[
            lines[max(0, start - 8 * half) : max(0, start - half)], lines[end + half :][: 7 * half]
        ]
        if end - start <= 2 * WIDEST * half and beside.size and beside.mean() < seam / 2:
            # A sharp edge is seen from `half` before to `half` after it.
            cuts += [min(start + half, end - half), max(start + half, end - half)]
    cuts.append(len(lines))
    return [(start, end) for start, end in list(pairwise(cuts))[::2] if end > start]
