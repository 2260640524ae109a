"""The building blocks of the world: parts (primitives with a material), and what they are packed into.

Coordinates of a subject: y up, its front towards +z, standing on the plane y = 0 around the origin, one unit
tall.
Colours are sRGB in 0..1.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Vec3 = tuple[float, float, float]
Kind = Literal["ellipsoid", "box", "frustum"]
Pattern = Literal[
    "plain",
    "stripes",
    "checks",
    "dots",
    "gradient",
    "emblem",
    "fractal",
    "cellular",
    "marble",
    "wood",
    "speckle",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)


@dataclass(frozen=True)
class Material:
    """The look of a part's surface.

    `colors` are the base, the second and the third colour of the pattern. `scale` is the pattern's
    repetitions per unit of length. `turn` rotates the pattern's coordinates (Euler angles x, y, z in
    degrees). `seed` (31 bits) moves noise, and draws the bitmap of "emblem": letters or a symmetric 8x8 sign
    that faces the part's front.
    `gloss` in 0..1 is the strength of the highlight.
    """

    pattern: Pattern = "plain"
    colors: tuple[Vec3, Vec3, Vec3] = ((0.5, 0.5, 0.5),) * 3
    scale: float = 4.0
    turn: Vec3 = (0.0, 0.0, 0.0)
    seed: int = 0
    gloss: float = 0.2


@dataclass(frozen=True)
class Part:
    """A primitive: `size` holds half extents along its own x, y, z; `rotation` Euler angles x, y, z in
    degrees, applied x first. A frustum's axis is its y; `taper` is its top radius over its bottom radius (1
    a cylinder, 0 a cone). Other kinds ignore `taper`.
    """

    kind: Kind
    center: Vec3
    size: Vec3
    material: Material
    rotation: Vec3 = (0.0, 0.0, 0.0)
    taper: float = 1.0
