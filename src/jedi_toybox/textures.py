"""The patterns of surfaces: colour at a point, in the pattern's own coordinates (one unit a repetition).

Letters: I pictures, Q rays. Everything is (I, Q). A pattern gives two weights: how much of the second colour
covers the first, then how much of the third covers both.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from jedi_toybox.geometry import Triple
from jedi_toybox.noise import fractal_noise, lattice, scramble
from jedi_toybox.parts import PATTERNS, Pattern

Weights = tuple[Tensor, Tensor]

EMBLEM_HALF = 0.64  # half the emblem's side, where 1 is half the part's smaller side

# five columns by seven rows a letter, a row a number whose highest of five bits is the left column
_FONT = {
    "A": (14, 17, 17, 31, 17, 17, 17), "B": (30, 17, 17, 30, 17, 17, 30), "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (30, 17, 17, 17, 17, 17, 30), "E": (31, 16, 16, 30, 16, 16, 31), "F": (31, 16, 16, 30, 16, 16, 16),
    "G": (14, 17, 16, 23, 17, 17, 15), "H": (17, 17, 17, 31, 17, 17, 17), "J": (7, 2, 2, 2, 2, 18, 12),
    "K": (17, 18, 20, 24, 20, 18, 17), "L": (16, 16, 16, 16, 16, 16, 31), "M": (17, 27, 21, 21, 17, 17, 17),
    "N": (17, 25, 21, 19, 17, 17, 17), "P": (30, 17, 17, 30, 16, 16, 16), "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30), "T": (31, 4, 4, 4, 4, 4, 4), "U": (17, 17, 17, 17, 17, 17, 14),
    "V": (17, 17, 17, 17, 10, 10, 4), "W": (17, 17, 17, 21, 21, 27, 17), "X": (17, 17, 10, 4, 10, 17, 17),
    "Y": (17, 17, 10, 4, 4, 4, 4), "Z": (31, 1, 2, 4, 8, 16, 31), "2": (14, 17, 1, 6, 8, 16, 31),
    "3": (30, 1, 1, 14, 1, 1, 30), "4": (2, 6, 10, 18, 31, 2, 2), "5": (31, 16, 30, 1, 1, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8), "8": (14, 17, 17, 14, 17, 17, 14), "9": (14, 17, 17, 15, 1, 2, 12),
}  # fmt: skip


@functools.lru_cache(maxsize=4096)
def emblem_bits(seed: int) -> tuple[int, int]:
    """Return the 8x8 bitmap of an emblem as two int32: rows 0 to 3 from the bottom, and rows 4 to 7; bit 0 is
    the left column.

    Half of the seeds give a letter or digit, half a sign that is its own mirror image.
    """
    rng = np.random.default_rng(seed)
    if rng.random() < 0.5:
        rows = _FONT[sorted(_FONT)[rng.integers(len(_FONT))]]
        grid = np.zeros((8, 8), dtype=np.uint8)
        grid[:7, 1:6] = [[row >> (4 - column) & 1 for column in range(5)] for row in reversed(rows)]
    else:
        half = rng.random((8, 4)) < 0.5
        grid = np.concatenate([half, half[:, ::-1]], axis=1).astype(np.uint8)
    low, high = np.packbits(grid, axis=1, bitorder="little").reshape(2, 4).copy().view("<i4").ravel()
    return int(low), int(high)


def pattern_color(pattern: Tensor, q: Triple, colors: tuple[Triple, Triple, Triple], codes: Triple) -> Triple:
    """Return the surface's colour. `pattern` int32, an index into PATTERNS; `codes` int32: seed and the two
    words of emblem_bits.
    """
    one, two = _weights(pattern, q, codes)
    r, g, b = (
        torch.lerp(torch.lerp(first, second, one), third, two)
        for first, second, third in zip(*colors, strict=True)
    )
    return r, g, b


def _weights(pattern: Tensor, q: Triple, codes: Triple) -> Weights:
    seed, low, high = codes
    noise = fractal_noise(*q, seed)
    options: dict[Pattern, Weights] = {
        "stripes": _stripes(q[0]),
        "checks": _checks(q),
        "dots": _dots(q),
        "gradient": _gradient(q[1]),
        "emblem": _emblem(q, low, high),
        "fractal": (_step(noise, 0.38, 0.56), _step(noise, 0.58, 0.68)),
        "cellular": _cellular(q, seed),
        "marble": _marble(q[0], noise),
        "wood": _wood(q, noise),
        "speckle": _speckle(q, seed, noise),
    }
    one = two = torch.zeros_like(q[0])
    for name, (w1, w2) in options.items():
        chosen = pattern == PATTERNS.index(name)
        one, two = torch.where(chosen, w1, one), torch.where(chosen, w2, two)
    return one, two


def _stripes(x: Tensor) -> Weights:
    phase = x - torch.floor(x)
    return (phase > 0.45).float(), (phase > 0.88).float()


def _checks(q: Triple) -> Weights:
    total = (torch.floor(q[0]) + torch.floor(q[1]) + torch.floor(q[2])) * 0.5
    odd = total - torch.floor(total)
    return 2 * odd, torch.zeros_like(odd)


def _dots(q: Triple) -> Weights:
    """Balls around the points of a body-centred lattice: every plane through the pattern shows dots."""

    def ball(shift: float) -> Tensor:
        x, y, z = ((c + shift) - torch.floor(c + shift) - 0.5 for c in q)
        return (x * x + y * y + z * z < 0.36**2).float()

    return ball(0.0), ball(0.5)


def _gradient(y: Tensor) -> Weights:
    """y from -1 to 1: first to second colour in the lower half, on to the third in the upper."""
    return torch.clamp(y + 1, 0, 1), torch.clamp(y, 0, 1)


def _emblem(q: Triple, low: Tensor, high: Tensor) -> Weights:
    """Bits in the second colour on a square plate of the third, on the side that faces +z."""
    column, row = (torch.floor((c + EMBLEM_HALF) * (4 / EMBLEM_HALF)) for c in q[:2])
    on_grid = (column >= 0) & (column < 8) & (row >= 0) & (row < 8) & (q[2] > 0)
    bit = torch.clamp(row * 8 + column, 0, 63).to(torch.int32)
    word = torch.where(bit < 32, low, high)
    lit = ((word >> (bit & 31)) & 1) == 1
    plate = torch.maximum(torch.abs(q[0]), torch.abs(q[1])) < EMBLEM_HALF * 1.15
    return (on_grid & lit).float(), (plate & (q[2] > 0) & ~(on_grid & lit)).float()


def _cellular(q: Triple, seed: Tensor) -> Weights:
    """Cells around jittered lattice points, of two colours, their borders in the third."""
    corner = tuple(torch.floor(c - 0.5) for c in q)
    i, j, k = (c.to(torch.int32) for c in corner)
    first = second = torch.full_like(q[0], 9.0)
    shade = torch.zeros_like(q[0])
    for n in range(8):
        step = (n & 1, n >> 1 & 1, n >> 2)
        h = scramble(i + step[0], j + step[1], k + step[2], seed)
        square = torch.zeros_like(q[0])
        for axis in range(3):
            jitter = ((h >> (8 * axis)) & 255).float() * (0.7 / 255) + 0.15
            square = square + (corner[axis] + (step[axis] + jitter) - q[axis]) ** 2
        nearer = square < first
        second = torch.where(nearer, first, torch.minimum(second, square))
        shade = torch.where(nearer, ((h >> 24) & 3).float() * (1 / 3), shade)
        first = torch.where(nearer, square, first)
    border = torch.sqrt(second) - torch.sqrt(first)
    return shade, 1 - _step(border, 0.04, 0.12)


def _marble(x: Tensor, noise: Tensor) -> Weights:
    wave = torch.sin(2 * math.pi * (x * 0.7 + 2.2 * noise))
    return 0.5 + 0.5 * wave, _step(torch.abs(wave), 0.30, 0.05)


def _wood(q: Triple, noise: Tensor) -> Weights:
    ring = torch.sqrt(q[0] * q[0] + q[2] * q[2]) * 1.6 + noise * 1.4
    phase = ring - torch.floor(ring)
    return phase * phase, 0.35 * _step(phase, 0.8, 1.0)


def _speckle(q: Triple, seed: Tensor, noise: Tensor) -> Weights:
    """Fine grains over broad patches, as on stone, cloth or a printed photograph."""
    x, y, z = (torch.floor(c * 3.0).to(torch.int32) for c in q)
    grain = lattice(x, y, z, seed)
    return torch.clamp(_step(noise, 0.3, 0.7) + 0.5 * (grain - 0.5), 0, 1), (grain > 0.86).float() * 0.85


def _step(x: Tensor, low: float, high: float) -> Tensor:
    """0 below low, 1 above high, smooth between; falling if low > high."""
    t = torch.clamp((x - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)
