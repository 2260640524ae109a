"""The workbench on which a subject is put together: draws, palette, and shorthand for parts."""

import math

import numpy as np

from jedi_toybox import assembly, materials
from jedi_toybox.parts import KINDS, Kind, Material, Part, Vec3

Size = float | Vec3
SLOTS: dict[Kind, int] = {"ellipsoid": 8, "box": 5, "frustum": 5}
"""The most parts of each kind that a subject has; an accessory adds up to two of each."""
NO_TURN: Vec3 = (0.0, 0.0, 0.0)


class Builder:
    """Collects parts in any unit of length; `finish` brings them to subject coordinates.

    `role` n of a material: the palette's colour n is its base. Every call of `paint` draws a new material.
    """

    def __init__(self, rng: np.random.Generator, noisy: bool = False) -> None:
        self.random = rng.random
        self.parts: list[Part] = []
        self.palette = materials.draw_palette(self.random)
        self.plain_share = self.uniform(0.0, 0.35 if noisy else 0.6)
        self.noisy = noisy

    def uniform(self, low: float, high: float) -> float:
        """Return a number in low..high."""
        return low + (high - low) * self.random()

    def chance(self, share: float) -> bool:
        """Return true with this probability."""
        return self.random() < share

    def count(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both possible."""
        return low + int(self.random() * (high - low + 1))

    def paint(self, role: int = 0) -> Material:
        """Return a fresh material over the palette."""
        return materials.draw_material(self.random, self.palette, role, self.plain_share, self.noisy)

    def front(self, role: int = 0, share: float = 0.2) -> Material:
        """Like `paint`, or with chance `share` an emblem."""
        if self.chance(share):
            return materials.draw_emblem(self.random, self.palette, role)
        return self.paint(role)

    def flat(self, role: int = 0) -> Material:
        """Return a plain material of the palette."""
        return materials.plain(self.palette[role % len(self.palette)], 0.5 * self.random())

    def dark(self) -> Material:
        """Return what eyes, tyres and holes are made of: mostly near black."""
        draw = self.random()
        if draw < 0.75:
            return materials.plain((0.05 + 0.1 * draw, 0.06, 0.08), 0.6)
        if draw < 0.88:
            return materials.plain((0.95, 0.95, 0.92), 0.4)
        return materials.plain(materials.draw_color(self.random), 0.5)

    def add(
        self,
        kind: Kind,
        center: Vec3,
        size: Size,
        material: Material,
        turn: Vec3 = NO_TURN,
        taper: float = 1.0,
        pair: bool = False,
    ) -> None:
        """One part, or it and its mirror image at x = 0; nothing where no slot is left."""
        if self.room(kind) < 1 + pair:
            return
        extents = (size, size, size) if isinstance(size, (int, float)) else size
        part = Part(kind, center, extents, material, turn, taper)
        self.parts.append(part)
        if pair:
            self.parts.append(assembly.mirrored(part))

    def ball(
        self, center: Vec3, size: Size, material: Material, turn: Vec3 = NO_TURN, pair: bool = False
    ) -> None:
        """Add an ellipsoid of these half extents."""
        self.add("ellipsoid", center, size, material, turn, pair=pair)

    def box(
        self, center: Vec3, size: Size, material: Material, turn: Vec3 = NO_TURN, pair: bool = False
    ) -> None:
        """Add a box of these half extents."""
        self.add("box", center, size, material, turn, pair=pair)

    def tube(
        self,
        center: Vec3,
        size: Size,
        material: Material,
        taper: float = 1.0,
        turn: Vec3 = NO_TURN,
        pair: bool = False,
    ) -> None:
        """Add a frustum. `taper` over 1: wider at the top, where `size` then holds the top's radii."""
        if taper > 1.0:
            # Turned by half a circle about its own z first, so that its front stays in front.
            taper = 1.0 / taper
            matrix = assembly.product(
                assembly.rotation_matrix(turn), assembly.rotation_matrix((0.0, 0.0, 180.0))
            )
            turn = assembly.euler_angles(matrix)
        self.add("frustum", center, size, material, turn, taper, pair)

    def limb(
        self,
        start: Vec3,
        end: Vec3,
        radius: float,
        material: Material,
        taper: float = 1.0,
        pair: bool = False,
    ) -> None:
        """Add a round limb from `start` (of `radius`) to `end` (of `radius` x `taper`, taper at most 1)."""
        along = (end[0] - start[0], end[1] - start[1], end[2] - start[2])
        center = (start[0] + 0.5 * along[0], start[1] + 0.5 * along[1], start[2] + 0.5 * along[2])
        turn = assembly.direction_angles(along)
        self.tube(center, (radius, 0.5 * math.hypot(*along), radius), material, taper, turn, pair)

    def any_turn(self) -> Vec3:
        """Any rotation."""
        return self.uniform(-180, 180), self.uniform(-90, 90), self.uniform(-180, 180)

    def solid(
        self, center: Vec3, size: Vec3, material: Material, turn: Vec3 = NO_TURN, pair: bool = False
    ) -> None:
        """Add a primitive of a random kind that still has room, or nothing."""
        kinds = [kind for kind in (*KINDS, "ellipsoid") if self.room(kind) > pair]
        if kinds:
            kind = kinds[self.count(0, len(kinds) - 1)]
            taper = self.random() if self.chance(0.6) else 1.0
            self.add(kind, center, size, material, turn, taper, pair)

    def arrow(self, angle: float, length: float) -> tuple[float, float]:
        """x and y of a vector of this length that points up, then turned by `angle` degrees about z."""
        return -length * math.sin(math.radians(angle)), length * math.cos(math.radians(angle))

    def wheels(self, x: float, z: float, radius: float, width: float, material: Material) -> None:
        """Add a pair of wheels on the ground, their axle along x."""
        self.tube((x, radius, z), (radius, width, radius), material, turn=(0.0, 0.0, 90.0), pair=True)

    def eyes(self, x: float, y: float, z: float, radius: float) -> None:
        """Add a pair of eyes."""
        self.ball((x, y, z), (radius, radius * self.uniform(0.9, 1.3), radius * 0.8), self.dark(), pair=True)

    def room(self, kind: Kind) -> int:
        """How many parts of this kind the subject can still take."""
        return SLOTS[kind] - sum(part.kind == kind for part in self.parts)

    def face(self, angle: float) -> None:
        """Turn all parts so far about the y axis by `angle` degrees, from +z towards +x."""
        self.parts = assembly.turned(self.parts, (0.0, angle, 0.0))

    def finish(self) -> list[Part]:
        """Return the parts in subject coordinates."""
        return assembly.normalize(self.parts)
