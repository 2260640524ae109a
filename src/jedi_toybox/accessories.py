"""Attributes of a prompt: what a subject wears, holds or stands on, and how it lies. For any subject."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jedi_diffusion.errors import UsageError
from jedi_toybox.assembly import bounding_box, grounded, moved, part_bounds, rotation_matrix, turned
from jedi_toybox.materials import plain
from jedi_toybox.parts import Material, Part, Vec3

Draw = Callable[[], float]

RED: Vec3 = (0.86, 0.10, 0.10)
BLUE: Vec3 = (0.10, 0.22, 0.85)
GREEN: Vec3 = (0.10, 0.62, 0.18)
YELLOW: Vec3 = (0.97, 0.85, 0.12)
PURPLE: Vec3 = (0.52, 0.16, 0.70)
BLACK: Vec3 = (0.05, 0.05, 0.06)
WHITE: Vec3 = (0.96, 0.96, 0.94)
GOLD: Vec3 = (0.96, 0.74, 0.16)


@dataclass(frozen=True)
class Head:
    """Where a hat goes: the box around a part, and the height and radius at which a hat sits."""

    center: Vec3
    half: Vec3
    seat: float
    radius: float


def find_head(parts: Sequence[Part]) -> Head:
    """Return the high, central and broad part of a subject that a hat would be put on."""

    def score(bounds: tuple[Vec3, Vec3]) -> float:
        low, high = bounds
        breadth = min(high[0] - low[0], high[2] - low[2])
        return high[1] - 0.6 * abs(0.5 * (low[0] + high[0])) + 2.0 * min(breadth, 0.2)

    bounds = [part_bounds(part) for part in parts]
    best = max(range(len(parts)), key=lambda index: score(bounds[index]))
    low, high = bounds[best]
    center = (0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), 0.5 * (low[2] + high[2]))
    half = (0.5 * (high[0] - low[0]), 0.5 * (high[1] - low[1]), 0.5 * (high[2] - low[2]))
    kind, narrow = parts[best].kind, min(half[0], half[2])
    if kind == "ellipsoid":
        seat, radius = center[1] + 0.78 * half[1], 0.78 * narrow
    elif kind == "frustum" and rotation_matrix(parts[best].rotation)[1][1] > 0.5:
        # A hat is put over a point, and on a flat top.
        taper = parts[best].taper
        seat, radius = (high[1] - 0.06, 0.11) if taper < 0.4 else (high[1], 0.8 * taper * narrow)
    else:
        seat, radius = high[1], 0.8 * narrow
    return Head(center, half, seat, min(0.26, max(0.08, radius)))


def _front(parts: Sequence[Part], x: float, y: float) -> float:
    """About how far the subject reaches towards +z at this x and y (0 where there is nothing)."""
    depths = [0.0]
    for part in parts:
        low, high = part_bounds(part)
        u = (2 * x - low[0] - high[0]) / (high[0] - low[0])
        v = (2 * y - low[1] - high[1]) / (high[1] - low[1])
        radius = _radius(part, v)
        if abs(u) < radius:
            reach = 1.0 if part.kind == "box" else math.sqrt(radius * radius - u * u)
            depths.append(0.5 * (low[2] + high[2]) + 0.5 * (high[2] - low[2]) * reach)
    return max(depths)


def _radius(part: Part, height: float) -> float:
    """About how wide a part is at a height from -1 (its lowest point) to 1, relative to its half width."""
    if abs(height) >= 1.0:
        return 0.0
    if part.kind == "ellipsoid":
        return math.sqrt(1.0 - height * height)
    up = rotation_matrix(part.rotation)[1][1]
    if part.kind == "box" or abs(up) < 0.7:
        return 1.0
    return 1.0 - (1.0 - part.taper) * 0.5 * (1.0 + (height if up > 0 else -height))


def _cloth(color: Vec3, draw: Draw, gloss: float = 0.15) -> Material:
    """Return the named colour, a shade lighter or darker."""
    shade = 0.85 + 0.15 * draw()
    return plain((color[0] * shade, color[1] * shade, color[2] * shade), gloss)


def _tube(
    center: Vec3, radius: float, half: float, material: Material, taper: float = 1.0, turn: float = 0.0
) -> Part:
    return Part("frustum", center, (radius, half, radius), material, (0.0, 0.0, turn), taper)


def _hat(parts: list[Part], draw: Draw, color: Vec3, height: float, brim: float, taper: float) -> list[Part]:
    head, felt = find_head(parts), _cloth(color, draw)
    x, z, y, radius = head.center[0], head.center[2], head.seat, head.radius
    return [
        *parts,
        _tube((x, y + 0.015, z), radius * brim, 0.018, felt),
        _tube((x, y + height * radius, z), radius, height * radius, felt, taper),
    ]


def _red_hat(parts: list[Part], draw: Draw) -> list[Part]:
    return _hat(parts, draw, RED, 0.55 + 0.2 * draw(), 1.65, 0.75)


def _top_hat(parts: list[Part], draw: Draw) -> list[Part]:
    return _hat(parts, draw, BLACK, 1.0 + 0.3 * draw(), 1.5, 1.0)


def _party_hat(parts: list[Part], draw: Draw) -> list[Part]:
    head, radius = find_head(parts), 0.85 * find_head(parts).radius
    x, z, y, rise = head.center[0], head.center[2], head.seat, radius * (1.3 + 0.4 * draw())
    stripes = Material("stripes", (YELLOW, PURPLE, WHITE), 9.0, (0.0, 0.0, 60.0))
    return [
        *parts,
        _tube((x, y + rise, z), radius, rise, stripes, 0.04),
        Part("ellipsoid", (x, y + 2 * rise, z), (0.3 * radius,) * 3, _cloth(PURPLE, draw)),
    ]


def _crown(parts: list[Part], draw: Draw) -> list[Part]:
    head, gold = find_head(parts), _cloth(GOLD, draw, 0.9)
    x, z, y, radius = head.center[0], head.center[2], head.seat, head.radius
    rise = radius * (0.45 + 0.15 * draw())
    points = [
        Part(
            "box",
            (x, y + 2 * rise, z),
            (0.68 * radius, 0.68 * radius * 0.35, 0.05 * radius),
            gold,
            (0.0, turn, 0.0),
        )
        for turn in (45.0, -45.0)
    ]
    jewel = plain(RED, 0.9)
    return [
        *parts,
        # Upside down, so that it widens to the top.
        _tube((x, y + rise, z), 1.12 * radius, rise, gold, 0.85, 180.0),
        *points,
        Part("ellipsoid", (x, y + rise, z + radius), (0.2 * radius,) * 3, jewel),
    ]


def _sunglasses(parts: list[Part], draw: Draw) -> list[Part]:
    head, glass = find_head(parts), plain((0.03, 0.03, 0.04), 0.9)
    half = min(0.22, max(0.06, head.half[0]))
    y = head.center[1] + (0.2 * head.half[1] if head.half[1] < 0.3 else head.half[1] - 0.2)
    x, size = head.center[0], half * (0.36 + 0.06 * draw())
    z = max(_front(parts, x + sign * 0.45 * half, y) for sign in (1.0, -1.0)) + 0.01
    lenses = [
        Part("ellipsoid", (x + sign * 0.47 * half, y, z), (size, 0.85 * size, 0.035), glass)
        for sign in (1.0, -1.0)
    ]
    arms = Part("box", (x, y + 0.25 * size, z - 0.3 * half), (0.98 * half, 0.022, 0.3 * half), glass)
    return [*parts, *lenses, arms]


def _girth(parts: Sequence[Part], head: Head, y: float) -> tuple[float, float]:
    """Half widths on x and z, about the head's axis, of what the axis meets at height y."""
    reach = [(0.0, 0.0)]
    for part in parts:
        low, high = part_bounds(part)
        radius = _radius(part, (2 * y - low[1] - high[1]) / (high[1] - low[1]))
        off_x, off_z = (abs(0.5 * (low[i] + high[i]) - head.center[i]) for i in (0, 2))
        half_x, half_z = (0.5 * radius * (high[i] - low[i]) for i in (0, 2))
        if radius > 0 and _covers(part, off_x / half_x, off_z / half_z):
            reach.append((off_x + half_x, off_z + half_z))
    return max(x for x, _ in reach), max(z for _, z in reach)


def _covers(part: Part, u: float, w: float) -> bool:
    """Whether the point u, w (relative to the half widths) is in the part's cross-section."""
    return u * u + w * w < 1.0 if part.kind == "ellipsoid" else max(u, w) < 1.0


def _neck(parts: Sequence[Part], head: Head) -> float:
    """Return the height where a scarf sits: as low on the head as nothing much wider than the head is in the
    way.
    """
    lowest = -0.7 if head.half[1] < 0.3 else -0.1
    neck = head.center[1] + 0.6 * head.half[1]
    for step in range(1, 9):
        y = head.center[1] + (0.6 + (lowest - 0.6) * step / 8) * head.half[1]
        wide, deep = _girth(parts, head, y)
        if wide > 1.1 * head.half[0] or deep > 1.3 * head.half[2]:
            break
        neck = y
    return neck


def _scarf(parts: list[Part], draw: Draw) -> list[Part]:
    head, wool = find_head(parts), _cloth(BLUE, draw)
    low = max(0.06, _neck(parts, head))
    wide, deep = (max(0.06, 1.12 * reach + 0.03) for reach in _girth(parts, head, low))
    x, z = head.center[0], head.center[2]
    side = 1.0 if draw() < 0.5 else -1.0
    ring = Part("frustum", (x, low, z), (wide, 0.05, deep), wool)
    hang = min(0.11, 0.45 * low)
    place = (x + side * 0.4 * wide, low - 0.9 * hang, z + 0.95 * deep)
    return [*parts, ring, Part("box", place, (0.05, hang, 0.025), wool, (-8.0, 0.0, side * 8.0))]


def _balloon(parts: list[Part], draw: Draw) -> list[Part]:
    low, high = bounding_box(parts)
    side = 1.0 if draw() < 0.5 else -1.0
    size, lift = 0.13 + 0.03 * draw(), 0.55 * (high[1] - low[1])
    x = (high[0] if side > 0 else low[0]) + side * 0.8 * size
    top = high[1] + 0.04 + 0.08 * draw()
    rubber = _cloth(RED, draw, 0.8)
    return [
        *parts,
        _tube((x, 0.5 * (top + lift) - 0.5 * size, 0.08), 0.008, 0.5 * (top - lift), plain(WHITE)),
        Part("ellipsoid", (x, top, 0.08), (size, 1.2 * size, size), rubber),
        _tube((x, top - 1.22 * size, 0.08), 0.25 * size, 0.12 * size, rubber, 0.3),
    ]


def _flag(parts: list[Part], draw: Draw) -> list[Part]:
    low, high = bounding_box(parts)
    side = 1.0 if draw() < 0.5 else -1.0
    x, top = (high[0] if side > 0 else low[0]) + side * 0.05, high[1] + 0.12
    cloth = _cloth(YELLOW, draw)
    return [
        *parts,
        _tube((x, 0.5 * top, 0.0), 0.014, 0.5 * top, plain((0.45, 0.3, 0.18))),
        Part("box", (x + side * 0.14, top - 0.11, 0.0), (0.13, 0.09, 0.01), cloth),
    ]


def _on_box(parts: list[Part], draw: Draw) -> list[Part]:
    low, high = bounding_box(parts)
    height = 0.1 + 0.06 * draw()
    size = (0.52 * (high[0] - low[0]) + 0.03, height, 0.52 * (high[2] - low[2]) + 0.03)
    return [*moved(parts, (0.0, 2 * height, 0.0)), Part("box", (0.0, height, 0.0), size, _cloth(GREEN, draw))]


def _on_cushion(parts: list[Part], draw: Draw) -> list[Part]:
    low, high = bounding_box(parts)
    height = 0.07 + 0.03 * draw()
    size = (0.62 * (high[0] - low[0]) + 0.06, height, 0.62 * (high[2] - low[2]) + 0.06)
    cushion = Part("ellipsoid", (0.0, height, 0.0), size, _cloth(PURPLE, draw))
    return [*moved(parts, (0.0, 1.5 * height, 0.0)), cushion]


def _lying(parts: list[Part], draw: Draw) -> list[Part]:
    return grounded(turned(parts, (0.0, 0.0, 90.0 if draw() < 0.5 else -90.0)))


def _upside_down(parts: list[Part], draw: Draw) -> list[Part]:
    return grounded(turned(parts, (0.0, 0.0, 180.0)))


_APPLY: dict[str, Callable[[list[Part], Draw], list[Part]]] = {
    "wearing a red hat": _red_hat,
    "wearing a black top hat": _top_hat,
    "wearing a party hat": _party_hat,
    "wearing a golden crown": _crown,
    "wearing sunglasses": _sunglasses,
    "wearing a blue scarf": _scarf,
    "with a red balloon": _balloon,
    "with a yellow flag": _flag,
    "on a green box": _on_box,
    "on a purple cushion": _on_cushion,
    "lying on its side": _lying,
    "upside down": _upside_down,
}
ATTRIBUTES: tuple[str, ...] = tuple(_APPLY)


def apply_attribute(parts: list[Part], attribute: str, rng: np.random.Generator) -> list[Part]:
    """Return the subject with an attribute: its own parts first, moved as one body, then up to two of each
    kind.

    The result stands on y = 0 and may be taller or wider than one unit. Raises UsageError for an attribute
    that is not in ATTRIBUTES.
    """
    apply = _APPLY.get(attribute)
    if apply is None:
        raise UsageError(
            f"The toybox knows no attribute {attribute!r}; choose one of {', '.join(ATTRIBUTES)}."
        )
    return apply(parts, rng.random)
