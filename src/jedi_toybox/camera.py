"""Cameras: a random view around the subject, placed so that the subject fills its share of the picture.

Letters: P points that outline the subject; T parts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jedi_toybox.parts import KINDS, Part

Array = NDArray[np.floating]

MAX_WIDTH = 0.92  # of the picture's width, for subjects wider than tall
_MARGIN = 0.03  # kept free around the subject, as a share of the picture's height
_WANDER = 0.11  # how far the subject's centre moves off the picture's centre, as a share of the height


@dataclass(frozen=True)
class Camera:
    """A perspective camera. `position` and `target` in world units, `tangent` of half the angle of view,
    `shift` of the picture's centre in half heights (right, up), as with a shift lens.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    tangent: float
    shift: tuple[float, float]

    @property
    def basis(self) -> Array:
        """(3, 3) rows: right, up and forward."""
        return basis(np.subtract(self.target, self.position))

    @property
    def azimuth(self) -> float:
        """Radians around the y axis, 0 in front of the subject (on +z), positive towards +x."""
        return float(np.arctan2(self.position[0], self.position[2]))

    def project(self, points: Array) -> Array:
        """(P, 3) world points to (P, 2) picture coordinates: right and up, -1 to 1 inside the picture."""
        seen = (points - np.array(self.position)) @ self.basis.T
        return seen[:, :2] / (seen[:, 2:] * self.tangent) - np.array(self.shift)


def basis(forward: Array) -> Array:
    """(3, 3) rows: right (level), up and forward, of unit length, for a direction that is not upright."""
    x, y, z = forward / np.sqrt(forward @ forward)
    level = np.hypot(x, z)
    right_x, right_z = -z / level, x / level
    return np.array(
        [[right_x, 0.0, right_z], [-right_z * y, right_z * x - right_x * z, right_x * y], [x, y, z]]
    )


def rotation_matrices(angles: Array) -> Array:
    """(T, 3) Euler angles in degrees, x applied first, to (T, 3, 3) matrices that act on columns."""
    sine, cosine = np.sin(np.radians(angles)).T, np.cos(np.radians(angles)).T
    (sx, sy, sz), (cx, cy, cz) = sine, cosine
    rows = [
        [cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz],
        [cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz],
        [-sy, sx * cy, cx * cy],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def turn_matrices(angles: Array) -> Array:
    """(T,) radians around the y axis to (T, 3, 3) matrices that act on columns; positive from +z towards
    +x.
    """
    degrees = np.zeros((len(angles), 3))
    degrees[:, 1] = np.degrees(angles)
    return rotation_matrices(degrees)


def _outlines() -> dict[str, Array]:
    """Points on each kind's surface in unit coordinates; a frustum's lower and upper rim, to be narrowed by
    the taper.
    """
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.cos(turn), np.zeros(12), np.sin(turn)], axis=1)
    flat = np.array([1.0, 0.0, 1.0])
    up = np.array([0.0, 1.0, 0.0])
    tilt = np.sqrt(0.5)
    ball = [ring, ring * tilt + up * tilt, ring * tilt - up * tilt, up[None], -up[None]]
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    return {
        "ellipsoid": np.concatenate(ball),
        "box": corners,
        "frustum": np.concatenate([ring * flat - up, ring * flat + up]),
    }


_OUTLINES = _outlines()


def outline(parts: list[Part]) -> Array:
    """(P, 3) world points on the surfaces of the parts, whose hull is within a few percent of the parts'
    own.
    """
    points = []
    for kind in KINDS:
        chosen = [part for part in parts if part.kind == kind]
        if not chosen:
            continue
        unit = np.repeat(_OUTLINES[kind][None], len(chosen), axis=0)
        if kind == "frustum":
            taper = np.array([part.taper for part in chosen])[:, None]
            unit[:, :, ::2] *= np.where(unit[:, :, 1] > 0, taper, 1.0)[..., None]
        unit *= np.array([part.size for part in chosen])[:, None, :]
        turned = unit @ rotation_matrices(np.array([part.rotation for part in chosen])).transpose(0, 2, 1)
        points.append((turned + np.array([part.center for part in chosen])[:, None, :]).reshape(-1, 3))
    return np.concatenate(points)


def random_azimuth(rng: np.random.Generator) -> float:
    """Radians: mostly the front (within 70 degrees), one in six from anywhere."""
    half_turn = np.pi if rng.random() < 1 / 6 else np.radians(70)
    return float(rng.uniform(-half_turn, half_turn))


def random_camera(points: Array, rng: np.random.Generator, azimuth: float | None = None) -> Camera:
    """Return a view from `azimuth` (of random_azimuth if None), 3 to 35 degrees up, in which the points fill
    44% to 69% of the picture's height (less if they would fill more than MAX_WIDTH of its width).
    """
    drawn = random_azimuth(rng)  # always, so that all else is the same with and without `azimuth`
    azimuth = drawn if azimuth is None else azimuth
    rise = np.radians(3 + 32 * rng.random() ** 1.6)
    tangent = np.tan(np.radians(rng.uniform(13, 25)))
    height, wander = rng.uniform(0.44, 0.69), rng.uniform(-1, 1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    target = (low + high) / 2
    away = np.array([np.sin(azimuth) * np.cos(rise), np.sin(rise), np.cos(azimuth) * np.cos(rise)])
    distance = float(np.linalg.norm(high - low)) / (2 * height * tangent)
    right, up, ahead = ((points - target) @ basis(-away).T).T
    for _ in range(4):  # nearer and farther; perspective makes it a little more than one division
        scale = tangent * (distance + ahead)
        seen = np.stack([right / scale, up / scale])
        low, high = seen.min(axis=1), seen.max(axis=1)
        width_share, height_share = (high - low) / 2
        distance *= max(height_share / height, width_share / MAX_WIDTH)
    room = np.maximum(1 - 2 * _MARGIN - (high - low) / 2, 0)
    shift = (low + high) / 2 + np.clip(2 * _WANDER * wander, -room, room)
    return Camera(_floats(target + distance * away), _floats(target), tangent, _floats(shift))


def _floats(values: Array) -> tuple[Any, ...]:
    return tuple(float(value) for value in values)
