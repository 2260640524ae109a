"""Things that stand around a subject in a scene: rocks, trunks, bushes, balls, boxes, candles."""

import math

import numpy as np

from jedi_toybox.parts import Kind, Material, Part, Pattern, Vec3

MOST_CLUTTER = 4
NEAREST = 0.8
_SHARE = 0.6  # of the pictures have any
_BEHIND = math.radians(65)  # the widest angle from -z: clear of cameras up to 70 degrees beside +z
Palette = tuple[Vec3, Vec3, Vec3]
_STONE: Palette = ((0.50, 0.49, 0.47), (0.38, 0.37, 0.36), (0.62, 0.60, 0.57))
_BARK: Palette = ((0.42, 0.30, 0.20), (0.30, 0.21, 0.14), (0.50, 0.38, 0.26))
_LEAF: Palette = ((0.20, 0.45, 0.20), (0.13, 0.33, 0.15), (0.30, 0.55, 0.24))
_SNOW: Palette = ((0.95, 0.96, 1.00), (0.86, 0.90, 0.97), (1.00, 1.00, 1.00))
_WAX: Palette = ((0.95, 0.90, 0.78), (0.90, 0.80, 0.60), (1.00, 0.95, 0.85))

# sort -> kind, (half width, half height) ranges, taper, pattern, colours (None: any)
_SORTS: dict[str, tuple[Kind, tuple[float, float], tuple[float, float], float, Pattern, Palette | None]] = {
    "rock": ("ellipsoid", (0.08, 0.24), (0.06, 0.16), 1.0, "fractal", _STONE),
    "trunk": ("frustum", (0.05, 0.10), (0.50, 0.90), 0.8, "wood", _BARK),
    "stump": ("frustum", (0.09, 0.16), (0.06, 0.14), 0.85, "wood", _BARK),
    "fir": ("frustum", (0.15, 0.25), (0.25, 0.50), 0.0, "fractal", _LEAF),
    "bush": ("ellipsoid", (0.12, 0.26), (0.10, 0.22), 1.0, "cellular", _LEAF),
    "snowball": ("ellipsoid", (0.08, 0.18), (0.08, 0.16), 1.0, "fractal", _SNOW),
    "candle": ("frustum", (0.03, 0.05), (0.08, 0.20), 0.95, "plain", _WAX),
    "ball": ("ellipsoid", (0.08, 0.18), (0.08, 0.18), 1.0, "stripes", None),
    "box": ("box", (0.08, 0.18), (0.06, 0.18), 1.0, "checks", None),
    "cone": ("frustum", (0.08, 0.15), (0.12, 0.25), 0.1, "stripes", None),
    "drum": ("frustum", (0.08, 0.16), (0.06, 0.18), 1.0, "plain", None),
}
# the first row with a word of the scene's phrase holds; the last is for every other scene
_SORTS_OF: tuple[tuple[frozenset[str], tuple[str, ...]], ...] = (
    (frozenset({"snow", "icy", "mountains"}), ("rock", "snowball", "fir")),
    (frozenset({"moon", "mars", "cave", "desert", "lava", "water"}), ("rock",)),
    (frozenset({"forest", "jungle", "fog", "leaves"}), ("trunk", "stump", "rock", "bush")),
    (frozenset({"grass", "flowers", "lake", "garden"}), ("stump", "rock", "fir", "bush", "ball")),
    (frozenset({"night", "library", "stage"}), ("candle", "box", "ball")),
    (frozenset(), ("ball", "box", "cone", "drum")),
)


def clutter(name: str, rng: np.random.Generator) -> list[Part]:
    """Up to four parts that stand around or behind the subject of scene `name`, often none.

    None reaches nearer than NEAREST to the origin, and none stands in front of the subject (towards +z).
    """
    if rng.random() > _SHARE:
        return []
    words = set(name.split())
    sorts = next(sorts for keys, sorts in _SORTS_OF if not keys or keys & words)
    count = int(rng.integers(1, MOST_CLUTTER + 1))
    return [_build(sorts[int(rng.integers(len(sorts)))], rng) for _ in range(count)]


def _build(sort: str, rng: np.random.Generator) -> Part:
    kind, widths, heights, taper, pattern, palette = _SORTS[sort]
    width, height = rng.uniform(*widths), rng.uniform(*heights)
    size = (width, height, width * rng.uniform(0.8, 1.0) if kind != "frustum" else width)
    angle = rng.uniform(-_BEHIND, _BEHIND)
    away = NEAREST + math.sqrt(2) * width + rng.uniform(0, 0.5)
    center = (
        away * math.sin(angle),
        height * (0.7 if sort in ("rock", "bush") else 1.0),
        -away * math.cos(angle),
    )
    material = Material(
        pattern=pattern,
        colors=palette or _any_palette(rng),
        scale=rng.uniform(3, 8),
        seed=int(rng.integers(1 << 31)),
        gloss=0.1 if palette else 0.3,
    )
    return Part(kind, center, size, material, rotation=(0.0, rng.uniform(0, 180), 0.0), taper=taper)


def _any_palette(rng: np.random.Generator) -> Palette:
    return _any_color(rng), _any_color(rng), _any_color(rng)


def _any_color(rng: np.random.Generator) -> Vec3:
    r, g, b = rng.uniform(0.1, 0.95, 3)
    return float(r), float(g), float(b)
