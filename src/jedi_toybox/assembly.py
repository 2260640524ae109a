"""Assemblies of parts as rigid bodies: rotations, exact bounding boxes, mirroring, standing on the ground.

Written in plain Python: a part holds a handful of numbers, for which numpy's call overhead would cost more.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from jedi_toybox.parts import Part, Vec3

Matrix = tuple[Vec3, Vec3, Vec3]
IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def rotation_matrix(angles: Vec3) -> Matrix:
    """Rows of Rz Ry Rx for Euler angles x, y, z in degrees, applied x first."""
    if angles == (0.0, 0.0, 0.0):
        return IDENTITY
    x, y, z = (math.radians(angle) for angle in angles)
    cx, sx, cy, sy, cz, sz = math.cos(x), math.sin(x), math.cos(y), math.sin(y), math.cos(z), math.sin(z)
    return (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )


def euler_angles(matrix: Matrix) -> Vec3:
    """Return the inverse of `rotation_matrix`: angles in degrees, y in -90..90. At y = +-90 z is set to 0."""
    y = math.asin(max(-1.0, min(1.0, -matrix[2][0])))
    if abs(matrix[2][0]) > 1.0 - 1e-9:
        x, z = math.atan2(-matrix[1][2], matrix[1][1]), 0.0
    else:
        x = math.atan2(matrix[2][1], matrix[2][2])
        z = math.atan2(matrix[1][0], matrix[0][0])
    return math.degrees(x), math.degrees(y), math.degrees(z)


def product(left: Matrix, right: Matrix) -> Matrix:
    """Return the matrix product: first `right`, then `left`."""
    a, b, c = (
        tuple(row[0] * right[0][j] + row[1] * right[1][j] + row[2] * right[2][j] for j in range(3))
        for row in left
    )
    return a, b, c  # type: ignore[return-value]


def apply(matrix: Matrix, point: Vec3) -> Vec3:
    """`matrix` times `point`."""
    x, y, z = point
    a, b, c = matrix
    return (
        a[0] * x + a[1] * y + a[2] * z,
        b[0] * x + b[1] * y + b[2] * z,
        c[0] * x + c[1] * y + c[2] * z,
    )


def direction_angles(direction: Vec3) -> Vec3:
    """Euler angles that turn the y axis onto `direction` (of any length but zero)."""
    x, y, z = direction
    flat = math.hypot(x, z)
    if flat == 0.0:
        return (0.0, 0.0, 0.0 if y > 0 else 180.0)
    return math.degrees(math.atan2(flat, y)), math.degrees(math.atan2(x, z)), 0.0


def part_bounds(part: Part) -> tuple[Vec3, Vec3]:
    """Lowest and highest corner of the exact axis-aligned box around one part."""
    sx, sy, sz = part.size
    low, high = [], []
    for center, (ax, ay, az) in zip(part.center, rotation_matrix(part.rotation), strict=True):
        if part.kind == "ellipsoid":
            up = math.sqrt((ax * sx) ** 2 + (ay * sy) ** 2 + (az * sz) ** 2)
            down = up
        elif part.kind == "box":
            up = abs(ax) * sx + abs(ay) * sy + abs(az) * sz
            down = up
        else:
            # The convex hull of two ellipses: the bottom at -y with the full radii, the top at +y tapered.
            radius = math.hypot(ax * sx, az * sz)
            up = max(radius - ay * sy, radius * part.taper + ay * sy)
            down = max(radius + ay * sy, radius * part.taper - ay * sy)
        low.append(center - down)
        high.append(center + up)
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def bounding_box(parts: Sequence[Part]) -> tuple[Vec3, Vec3]:
    """Lowest and highest corner of the exact axis-aligned box around all parts (at least one)."""
    bounds = [part_bounds(part) for part in parts]
    lows, highs = [b[0] for b in bounds], [b[1] for b in bounds]
    low, high = (
        [min(column) for column in zip(*lows, strict=True)],
        [max(c) for c in zip(*highs, strict=True)],
    )
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def moved(parts: Sequence[Part], shift: Vec3, scale: float = 1.0) -> list[Part]:
    """Return the parts scaled about the origin, then shifted; patterns keep their repetitions per unit of
    length.
    """
    dx, dy, dz = shift
    return [
        Part(
            part.kind,
            (part.center[0] * scale + dx, part.center[1] * scale + dy, part.center[2] * scale + dz),
            (part.size[0] * scale, part.size[1] * scale, part.size[2] * scale),
            part.material,
            part.rotation,
            part.taper,
        )
        for part in parts
    ]


def turned(parts: Sequence[Part], angles: Vec3) -> list[Part]:
    """Return the parts as one rigid body turned about the origin."""
    matrix = rotation_matrix(angles)
    return [
        replace(
            part,
            center=apply(matrix, part.center),
            rotation=euler_angles(product(matrix, rotation_matrix(part.rotation))),
        )
        for part in parts
    ]


def mirrored(part: Part) -> Part:
    """Return the part's mirror image at the plane x = 0 (every primitive is its own mirror image)."""
    x, y, z = part.center
    return replace(part, center=(-x, y, z), rotation=(part.rotation[0], -part.rotation[1], -part.rotation[2]))


def normalize(parts: Sequence[Part]) -> list[Part]:
    """Return the parts scaled to a longest extent of 1, standing on y = 0, centred at x = z = 0."""
    low, high = bounding_box(parts)
    scale = 1.0 / max(high[0] - low[0], high[1] - low[1], high[2] - low[2])
    return moved(
        parts, (-0.5 * scale * (low[0] + high[0]), -scale * low[1], -0.5 * scale * (low[2] + high[2])), scale
    )


def grounded(parts: Sequence[Part]) -> list[Part]:
    """Return the parts put on y = 0 and centred at x = z = 0, at their own size."""
    low, high = bounding_box(parts)
    return moved(parts, (-0.5 * (low[0] + high[0]), -low[1], -0.5 * (low[2] + high[2])))
