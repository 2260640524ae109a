"""An invisible mark in the pixels of a picture, which stays when its file is saved anew, scaled or cut.

It says one thing, that jedi-diffusion made the picture, by the phases of its middle frequencies: each is
moved towards one of a fixed pattern, as far as the picture hides it, until all together agree far more than
chance would have it. The picture is brought to GRID x GRID first, so that its size does not count; one that
was cut agrees at another scale and place. Without the mark, agreement at a scale and place is a standard
normal variable, whatever the picture, since the pattern's phases are random. The pattern is in this file:
whoever wants to remove the mark, or to put it on another picture, can.

Letters: N = GRID; h, w sides of a picture on the grid.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 128
BAND = (4, 28)
"""Frequencies that carry the mark, in periods on the grid: half a picture of 128 pixels keeps them."""
SMALLEST = 64
"""Sides in pixels below which a picture carries no mark: it could not be found again."""
THRESHOLD = 6.0
"""Agreement from which a picture counts as marked: by chance one in 70,000 pictures comes so far."""
TARGET = 12.0
"""Agreement of a picture that has just been marked."""
LEAST = 7.0
"""Agreement that a mark must reach to be worth its place: saving the file anew takes some of it."""
STRONGEST = 2.5
"""Levels of 255, root mean square, of the strongest mark, where the picture is of middling unrest."""
LEAST_SCALE, SCALES = 0.85, 11
"""Smallest part of a picture's sides that is looked for, and how many parts are tried from there to 1."""
NOISE = 1.0
"""Levels of 255 that are not trusted when a mark is read: what rounding and compression leave."""
EXPECTED_NOISE = 2.5
"""Levels of 255 that a mark is made to withstand."""
EDGE = 6
"""Places of the grid over which a picture fades in at its edges, so that these are not read as a pattern."""
UNREST = 3.0
"""Levels of 255 of detail that hide one level of the mark, beyond LEAST_HIDDEN and up to MOST_HIDDEN."""
LEAST_HIDDEN, MOST_HIDDEN = 0.3, 1.8
MOST_ROUNDS, ROUND = 200, 1 / 60
"""Rounds in which a mark grows, and by what share of STRONGEST in each."""

Array = NDArray[np.float64]
Spectrum = NDArray[np.complex128]


@dataclass(frozen=True)
class Mark:
    """What was read: agreement, in standard deviations of chance, and the part of the sides that is left."""

    agreement: float
    part: tuple[float, float]

    @property
    def is_there(self) -> bool:
        return self.agreement >= THRESHOLD


def marked(picture: Image.Image) -> Image.Image:
    """Return an RGB picture with the mark, the same for the same picture.

    One that is smaller than SMALLEST, or too plain to hide a mark that would be found, stays as it is.
    """
    if min(picture.size) < SMALLEST:
        return picture
    pixels = np.asarray(picture.convert("RGB"), np.float64)
    luma = _on_grid(_luma(picture))
    grown = _grown(luma, _on_grid(pixels.min(2)), 255 - _on_grid(pixels.max(2)))
    change = Image.fromarray(grown.astype(np.float32)).resize(picture.size, Image.Resampling.BICUBIC)
    made = pixels + np.asarray(change, np.float64)[..., None]
    whole = Image.fromarray(np.clip(np.round(made), 0, 255).astype(np.uint8))
    return whole if _agreement(_spectrum(_on_grid(_luma(whole))))[0, 0] >= LEAST else picture


def read_mark(picture: Image.Image) -> Mark:
    """Return the mark of a picture of any size, whole, or cut to LEAST_SCALE of its sides or more."""
    luma = _luma(picture)
    found = Mark(float(_agreement(_spectrum(_on_grid(luma)))[0, 0]), (1.0, 1.0))
    if found.is_there:  # in a picture that nobody has cut
        return found
    sides = [round(GRID * part) for part in np.linspace(1, LEAST_SCALE, SCALES)]
    for h in sides:
        for w in sides:
            agreement = _agreement(_spectrum(_on_grid(luma, h, w)))[: GRID - h + 1, : GRID - w + 1]
            if agreement.max() > found.agreement:
                found = Mark(float(agreement.max()), (w / GRID, h / GRID))
    return found


def _grown(luma: Array, below: Array, above: Array) -> Array:
    """Return what to add to a picture, (N, N), that agrees with the pattern as TARGET says, or nearly.

    below, above: how far each place may go down and up. The change follows the gradient of the agreement
    that is left after EXPECTED_NOISE, in steps that are as large as each place hides.
    """
    hidden = _hidden(luma)
    fade = _fade(GRID)[:, None] * _fade(GRID)
    change = np.zeros_like(luma)
    pattern, floor = _pattern(), EXPECTED_NOISE * GRID
    for _ in range(MOST_ROUNDS):
        spectrum = _spectrum(luma + change)
        strength = np.sqrt(np.square(change / hidden).mean())
        if _agreement(spectrum)[0, 0] >= TARGET or strength >= STRONGEST:
            break
        length = np.hypot(np.abs(spectrum), floor)
        along = (spectrum * pattern.conj()).real
        gradient = pattern / length - np.where(pattern != 0, spectrum * along / length**3, 0)
        step = np.fft.irfft2(gradient, s=luma.shape) * fade * hidden**2
        step *= STRONGEST * ROUND / np.sqrt(np.square(step / hidden).mean())
        change = np.clip(change + step, -below, above)
    return change


def _hidden(luma: Array) -> Array:
    """Return how strong a change each place hides, as a factor: detail hides more than a clear sky."""
    detail = _smooth(np.abs(luma - _smooth(luma, 2.0)), 1.0)
    around = [np.roll(detail, (down, across), (0, 1)) for down in range(-2, 3) for across in range(-2, 3)]
    unrest = _smooth(
        np.min(around, axis=0), 1.0
    )  # of the calmest place around: an edge hides nothing beside it
    return np.clip(LEAST_HIDDEN + unrest / UNREST, LEAST_HIDDEN, MOST_HIDDEN)


def _smooth(values: Array, deviation: float) -> Array:
    """Return values (N, N) under a Gaussian of this standard deviation in places, over the edges."""
    down, across = np.fft.fftfreq(GRID)[:, None], np.fft.rfftfreq(GRID)
    weights = np.exp(-2 * (np.pi * deviation) ** 2 * (down**2 + across**2))
    return np.fft.irfft2(np.fft.rfft2(values) * weights, s=values.shape)


def _agreement(spectrum: Spectrum) -> Array:
    """Return (N, N) agreement of a spectrum with the pattern moved by each number of places.

    It is the sum of the cosines between their phases, weighted by how far each frequency stands out of NOISE,
    over its standard deviation for random phases.
    """
    pattern = _pattern()
    trusted = np.where(pattern != 0, spectrum / np.hypot(np.abs(spectrum), NOISE * GRID), 0)
    spread = np.sqrt(np.square(np.abs(trusted)).sum() / 2) + 1e-9
    summed: Array = np.fft.irfft2(pattern * trusted.conj(), s=(GRID, GRID)) * GRID**2 / 2
    return summed / spread


@lru_cache(1)
def _pattern() -> Spectrum:
    """Return the pattern (N, N // 2 + 1), of length 1 within BAND and 0 outside.

    Its phases come from a hash, so that they are the same everywhere and always. Frequencies along the axes
    are left out: edges of pictures lie there.
    """
    down, across = np.fft.fftfreq(GRID, 1 / GRID)[:, None], np.fft.rfftfreq(GRID, 1 / GRID)
    radius = np.hypot(down, across)
    inside = (radius >= BAND[0]) & (radius <= BAND[1]) & (down != 0) & (across != 0)
    drawn = hashlib.shake_256(b"jedi-diffusion watermark 1").digest(2 * radius.size)
    phases = np.frombuffer(drawn, "<u2").reshape(radius.shape) * (2 * np.pi / 2**16)
    return np.where(inside, np.exp(1j * phases), 0)


def _spectrum(values: Array) -> Spectrum:
    """Return the spectrum (N, N // 2 + 1) of a picture (h, w) in the grid's corner, faded at its edges."""
    h, w = values.shape
    grid = np.zeros((GRID, GRID))
    grid[:h, :w] = (values - values.mean()) * _fade(h)[:, None] * _fade(w)
    return np.fft.rfft2(grid)


def _fade(side: int) -> Array:
    """Return weights (side,) that rise from 0 to 1 over EDGE places at both ends."""
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(EDGE) + 0.5) / EDGE)
    return np.concatenate([rise, np.ones(side - 2 * EDGE), rise[::-1]])


def _luma(picture: Image.Image) -> NDArray[np.float32]:
    """Return how light each pixel is (H, W), 0 to 255, as JPEG counts it; large pictures are reduced."""
    pixels = np.asarray(picture.convert("RGB"), np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    size = (min(2 * GRID, picture.width), min(2 * GRID, picture.height))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _on_grid(values: NDArray[np.floating], h: int = GRID, w: int = GRID) -> Array:
    """Return values (H, W) brought to (h, w)."""
    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize((w, h), Image.Resampling.BICUBIC), np.float64)
