"""Analytic intersection of rays with the parts of the world: ellipsoids, boxes and frustums, all of them
convex.

Letters: I pictures; K slots (places for parts, a fixed number a kind, so that nothing depends on the data);
k slots of one kind; Q rays of a picture. A shape row (SHAPE_WIDTH numbers) maps world points to the part's
unit coordinates, in which an ellipsoid is the unit sphere, a box the cube from -1 to 1, and a frustum stands
from y = -1 (radius 1) to y = 1 (radius `taper`).
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from jedi_toybox.parts import KINDS, Kind

Triple = tuple[Tensor, Tensor, Tensor]
Interval = tuple[Tensor, Tensor]

SUBJECT_SLOTS: dict[Kind, int] = {"ellipsoid": 10, "box": 7, "frustum": 7}
CLUTTER_SLOTS: dict[Kind, int] = {"ellipsoid": 4, "box": 4, "frustum": 4}
SLOTS: dict[Kind, int] = {kind: SUBJECT_SLOTS[kind] + CLUTTER_SLOTS[kind] for kind in KINDS}
FIRST_SLOT: dict[Kind, int] = {
    "ellipsoid": 0,
    "box": SLOTS["ellipsoid"],
    "frustum": SLOTS["ellipsoid"] + SLOTS["box"],
}
SLOT_COUNT = sum(SLOTS.values())
SHAPE_WIDTH = 13  # nine numbers of the matrix, row by row; three of the offset; the taper

NO_HIT = 1e9
_NEAREST = 0.05  # a part closer to the camera than this is not seen
_LIFT = 0.004  # a shadow ray starts this far from its point, clear of the surface that it leaves
_TINY = 1e-7
_SLOT_BITS = 63  # the low bits of a distance that carry the slot; what is lost is 1e-5 of the distance


def to_local(shapes: Tensor, vectors: Iterable[Tensor], points: bool) -> Triple:
    """World points (or directions) in unit coordinates of parts.

    `shapes` is (I, k, SHAPE_WIDTH) or any (..., SHAPE_WIDTH) whose leading dimensions broadcast with x, y, z
    once a ray dimension is added at the end.
    """

    x, y, z = vectors

    def row(r: int) -> Tensor:
        a, b, c, offset = (shapes[..., j, None] for j in (3 * r, 3 * r + 1, 3 * r + 2, 9 + r))
        turned = a * x + b * y + c * z
        return turned + offset if points else turned

    return row(0), row(1), row(2)


def ellipsoid_interval(o: Triple, d: Triple) -> Interval:
    """Where the line o + t d is inside the unit sphere: t from the first to the second; first > second if
    never.
    """
    a = _dot(d, d) + _TINY**2
    b = _dot(o, d)
    discriminant = b * b - a * (_dot(o, o) - 1)
    root = torch.sqrt(torch.clamp(discriminant, min=0))
    inside = discriminant > 0
    return torch.where(inside, (-b - root) / a, NO_HIT), torch.where(inside, (root - b) / a, -NO_HIT)


def box_interval(o: Triple, d: Triple) -> Interval:
    """Return the same for the cube from -1 to 1, by slabs."""
    (x0, x1), (y0, y1), (z0, z1) = (_slab(oc, dc) for oc, dc in zip(o, d, strict=True))
    return torch.maximum(torch.maximum(x0, y0), z0), torch.minimum(torch.minimum(x1, y1), z1)


def frustum_interval(o: Triple, d: Triple, taper: Tensor) -> Interval:
    """Return the same for the frustum: the slab |y| <= 1 and the cone x^2 + z^2 <= r(y)^2, r(y) = middle +
    slope y.
    """
    middle, slope = (1 + taper) / 2, (taper - 1) / 2
    radius, growth = middle + slope * o[1], slope * d[1]
    a = d[0] * d[0] + d[2] * d[2] - growth * growth
    a = torch.where(torch.abs(a) < _TINY, _TINY, a)
    b = o[0] * d[0] + o[2] * d[2] - growth * radius
    c = o[0] * o[0] + o[2] * o[2] - radius * radius
    discriminant = b * b - a * c
    root = torch.sqrt(torch.clamp(discriminant, min=0))
    # the stable pair of roots: one as q / a, the other as c / q, neither of them a difference of near equals
    q = torch.where(b > 0, -b - root, root - b)
    q = torch.where(torch.abs(q) < _TINY, _TINY, q)
    low, high = torch.minimum(q / a, c / q), torch.maximum(q / a, c / q)
    # a ray steeper than the cone (a < 0) lies inside it beyond one root: the one on the side where r > 0
    steep, widens = a < 0, growth > 0
    start = torch.where(steep, torch.where(widens, high, -NO_HIT), low)
    end = torch.where(steep, torch.where(widens, NO_HIT, low), high)
    bottom, top = _slab(o[1], d[1])
    inside = steep | (discriminant > 0)  # a steep ray always meets the cone, its axis included
    return torch.where(inside, torch.maximum(start, bottom), NO_HIT), torch.minimum(end, top)


def nearest_hit(shapes: Tensor, origin: Tensor, direction: Triple) -> tuple[Tensor, Tensor]:
    """Return the first part that each ray meets.

    shapes (I, K, SHAPE_WIDTH); origin (I, 3), common to the picture's rays; direction three times (I, Q).
    Returns the ray parameter t (I, Q), NO_HIT or more where nothing is met, and the slot (I, Q) int32.
    """
    origin_at_slots = [origin[:, None, None, c] for c in range(3)]
    key: Tensor | None = None
    for kind, rows in _by_kind(shapes):
        o = to_local(rows, origin_at_slots, points=True)
        d = to_local(rows, (c[:, None, :] for c in direction), points=False)
        start, end = _interval(kind, rows, o, d)
        t = torch.where((start > _NEAREST) & (end >= start), start, NO_HIT)
        # positive floats order like their bits, so one integer minimum finds distance and slot together
        slot = torch.arange(rows.shape[1], dtype=torch.int32, device=rows.device) + FIRST_SLOT[kind]
        keys = (t.view(torch.int32) & ~_SLOT_BITS) | slot[None, :, None]
        best = torch.amin(keys, dim=1)
        key = best if key is None else torch.minimum(key, best)
    assert key is not None
    t = (key & ~_SLOT_BITS).view(torch.float32)
    return torch.where(t > 0.99 * NO_HIT, NO_HIT, t), key & _SLOT_BITS


def shade_depth(shapes: Tensor, point: Triple, light: Tensor) -> Tensor:
    """(I, Q): the longest way through any one part from the points towards the light, 0 where none is in the
    way.

    point three times (I, Q), light (I, 3).
    """
    light_at_slots = [light[:, None, None, c] for c in range(3)]
    depth: Tensor | None = None
    for kind, rows in _by_kind(shapes):
        o = to_local(rows, (c[:, None, :] for c in point), points=True)
        d = to_local(rows, light_at_slots, points=False)
        start, end = _interval(kind, rows, o, d)
        chord = torch.amax(torch.clamp(end - torch.clamp(start, min=_LIFT), 0, 1), dim=1)
        depth = chord if depth is None else torch.maximum(depth, chord)
    assert depth is not None
    return depth


def local_normal(slot: Tensor, p: Triple, taper: Tensor) -> Triple:
    """Return the outward normal (of any length) at surface points p, in unit coordinates; slot tells the
    kind. All (I, Q).
    """
    box, frustum = slot >= FIRST_SLOT["box"], slot >= FIRST_SLOT["frustum"]
    sizes = tuple(torch.abs(c) for c in p)
    largest = torch.maximum(torch.maximum(sizes[0], sizes[1]), sizes[2])
    face = tuple(torch.where(s >= largest, torch.sign(c), 0.0) for s, c in zip(sizes, p, strict=True))
    middle, slope = (1 + taper) / 2, (taper - 1) / 2
    radius = middle + slope * p[1]
    outside_side = torch.sqrt(p[0] * p[0] + p[2] * p[2]) - radius
    cap = sizes[1] - 1 > outside_side
    side = (
        torch.where(cap, 0.0, p[0]),
        torch.where(cap, torch.sign(p[1]), -slope * radius),
        torch.where(cap, 0.0, p[2]),
    )
    x, y, z = (torch.where(frustum, s, torch.where(box, f, c)) for s, f, c in zip(side, face, p, strict=True))
    return x, y, z


def _by_kind(shapes: Tensor) -> Iterator[tuple[Kind, Tensor]]:
    for kind in KINDS:
        yield kind, shapes[:, FIRST_SLOT[kind] : FIRST_SLOT[kind] + SLOTS[kind]]


def _interval(kind: Kind, rows: Tensor, o: Triple, d: Triple) -> Interval:
    if kind == "ellipsoid":
        return ellipsoid_interval(o, d)
    if kind == "box":
        return box_interval(o, d)
    return frustum_interval(o, d, rows[..., 12, None])


def _slab(o: Tensor, d: Tensor) -> Interval:
    inverse = 1 / torch.where(torch.abs(d) < _TINY, _TINY, d)
    one, other = (-1 - o) * inverse, (1 - o) * inverse
    return torch.minimum(one, other), torch.maximum(one, other)


def _dot(a: Triple, b: Triple) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
