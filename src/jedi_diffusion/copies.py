"""How near two whole pictures are, as pictures: what tells a copy of a reference from a new picture.

Letters: I pictures; T = COPY_SIDE, pixels of a thumbnail's side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jedi_diffusion.pictures import to_rgb

COPY_SIDE, COPY_SHIFT = 32, 2  # pixels; copies that are moved by up to 1/16 of the picture are found

COPY_DISTANCE = 0.1
"""Pictures nearer than this are copies at any rate. Photos of one DreamBench subject are 0.114 apart or more,
a photo and its compressed, brightened or slightly moved self 0.08 or less."""

Array = NDArray[np.floating]


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """Return (3, T, T): the centre square of a picture, small."""
    left, top = ((side - min(picture.size)) / 2 for side in picture.size)
    small = to_rgb(picture).resize(
        (COPY_SIDE, COPY_SIDE),
        Image.Resampling.LANCZOS,
        box=(left, top, picture.width - left, picture.height - top),
        reducing_gap=4.0,  # whole blocks are averaged first: much faster
    )
    return np.asarray(small).transpose(2, 0, 1)


def shifted_distance(first: Array, second: Array) -> Array:
    """Return (I,) root mean square difference of (I, 3, T, T) each, the least over shifts of COPY_SHIFT
    pixels.
    """
    inner = COPY_SIDE - 2 * COPY_SHIFT
    middle = first[:, :, COPY_SHIFT:-COPY_SHIFT, COPY_SHIFT:-COPY_SHIFT]
    moves = range(2 * COPY_SHIFT + 1)
    windows = (second[:, :, down : down + inner, right : right + inner] for down in moves for right in moves)
    squares = [np.square(middle - window).mean((1, 2, 3)) for window in windows]
    return np.sqrt(np.min(squares, axis=0))
