"""The camera of a composed picture, and what its pixels see.

Lengths are in half sides of a cut-out: the subject's middle is the origin, y points up, the camera looks
along +z and down. Letters: H pixels of a side.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

FLOOR = -0.8  # y of the floor: the subject fills most of its cut-out


@dataclass(frozen=True)
class Framing:
    """Where a cut-out lies in the picture: `scale` is its side over the picture's, (`right`, `up`) its middle
    in half sides of the picture; elevation in radians and tangent are the cut-out's.
    """

    scale: float
    right: float
    up: float
    elevation: float
    tangent: float

    @property
    def picture_tangent(self) -> float:
        """Tangent of half the picture's angle of view."""
        return self.tangent / self.scale

    @property
    def position(self) -> Array:
        """The camera, (3,)."""
        distance = 1 / self.tangent
        return distance * np.array([0.0, np.sin(self.elevation), -np.cos(self.elevation)])

    def directions(self, side: int) -> Array:
        """Return the ray of every pixel, (H, H, 3), of length 1 or more along the axis of view."""
        steps = (np.arange(side) + 0.5) / side * 2 - 1
        across = (steps[None, :] - self.right) * self.picture_tangent
        upward = (-steps[:, None] - self.up) * self.picture_tangent
        across, upward = np.broadcast_arrays(across, upward)
        sine, cosine = np.sin(self.elevation), np.cos(self.elevation)
        return np.stack([across, cosine * upward - sine, sine * upward + cosine], axis=-1)


def sample(image: Array, rows: Array, columns: Array) -> Array:
    """Bilinear values of `image` (h, w, C) at fractional rows and columns, repeating over the columns and
    ending at the first and last row.
    """
    height, width = image.shape[:2]
    rows = np.clip(rows, 0, height - 1.001)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    left, right = left % width, (left + 1) % width
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[top + 1, left] * (1 - across) + image[top + 1, right] * across
    return np.asarray(upper * (1 - down) + lower * down)
