"""Things without a name: random assemblies in broad families.

Each function puts one random thing on the workbench (any unit of length), within the slots of a subject.
"""

import math
from collections.abc import Callable

from jedi_diffusion.toybox.builder import NO_TURN, Builder
from jedi_diffusion.toybox.parts import KINDS, Material, Vec3


def _any_turn(b: Builder) -> Vec3:
    return b.uniform(-180, 180), b.uniform(-90, 90), b.uniform(-180, 180)


def _solid(
    b: Builder, center: Vec3, size: Vec3, material: Material, turn: Vec3 = NO_TURN, pair: bool = False
) -> None:
    """A primitive of a random kind, or none where no kind has room."""
    kinds = [kind for kind in KINDS if b.room(kind) > pair]
    if not kinds:
        return
    kind = kinds[b.count(0, len(kinds) - 1)]
    b.add(kind, center, size, material, turn, b.uniform(0.0, 1.0) if b.chance(0.6) else 1.0, pair)


def _lathe(b: Builder) -> None:
    """Round pieces stacked: from a jar to a chess piece."""
    y, radius = 0.0, b.uniform(0.12, 0.3)
    for _ in range(b.count(2, 6)):
        height, material = b.uniform(0.04, 0.2), b.paint(b.count(0, 3))
        if b.chance(0.35) and b.room("ellipsoid"):
            b.ball((0, y + 0.85 * height, 0), (radius, height, radius), material)
        else:
            taper = b.uniform(0.4, 1.0) if b.chance(0.6) else 1.0
            b.tube((0, y + height, 0), (radius, height, radius), material, taper)
        y += 1.8 * height
        radius = min(0.4, max(0.05, radius * b.uniform(0.5, 1.5)))
    if b.chance(0.35):
        b.ball((0, y, 0), b.uniform(0.04, 0.12), b.flat(2))


def _plush(b: Builder) -> None:
    """A soft creature: a body, perhaps a head, ears, eyes, arms and feet."""
    width, height = b.uniform(0.2, 0.36), b.uniform(0.2, 0.36)
    leg = b.uniform(0.02, 0.2)
    base, coat = leg + height, b.front(0, 0.25)
    b.ball((0, base, 0), (width, height, width * b.uniform(0.6, 1.0)), coat)
    face_y, face_w, face_z = base + 0.3 * height, width, 0.75 * width
    if b.chance(0.6):
        head = b.uniform(0.14, 0.28)
        face_y, face_w, face_z = base + height + 0.7 * head, head, 0.85 * head
        _solid(b, (0, face_y, 0), (head * b.uniform(0.8, 1.3), head, head), b.paint(b.count(0, 1)))
    if b.chance(0.75):
        b.eyes(
            b.uniform(0.3, 0.5) * face_w, face_y + 0.1 * face_w, face_z + 0.02, b.uniform(0.1, 0.28) * face_w
        )
    if b.chance(0.6):
        _solid(
            b,
            (b.uniform(0.4, 0.9) * face_w, face_y + face_w * b.uniform(0.8, 1.2), 0),
            (b.uniform(0.04, 0.12), b.uniform(0.06, 0.25), 0.05),
            b.paint(1),
            (0, 0, -b.uniform(-10, 40)),
            pair=True,
        )
    if b.chance(0.7):
        arms = b.paint(b.count(0, 2))
        b.limb(
            (0.7 * width, base + 0.3 * height, 0),
            (width + b.uniform(0.05, 0.25), base + b.uniform(-0.25, 0.3), 0.1),
            b.uniform(0.04, 0.1),
            arms,
            b.uniform(0.5, 1),
            pair=True,
        )
    if b.chance(0.7):
        b.limb(
            (0.5 * width, base - 0.5 * height, 0),
            (0.55 * width, 0, b.uniform(0, 0.2)),
            b.uniform(0.05, 0.11),
            b.paint(b.count(0, 2)),
            1.0,
            pair=True,
        )
    if b.chance(0.4):
        _solid(b, (0, face_y - 0.25 * face_w, face_z + 0.05), (0.3 * face_w, 0.2 * face_w, 0.1), b.flat(2))


def _package(b: Builder) -> None:
    """A box, can or carton with a label, a lid or bands."""
    width, height, depth = b.uniform(0.14, 0.42), b.uniform(0.16, 0.46), b.uniform(0.1, 0.35)
    if b.chance(0.5):
        b.box((0, height, 0), (width, height, depth), b.front(0, 0.4))
        if b.chance(0.7):
            shift = b.uniform(-0.3, 0.3)
            b.box(
                (0, height * (1 + shift), depth),
                (width * b.uniform(0.4, 0.95), height * b.uniform(0.2, 0.6), 0.012),
                b.front(1, 0.5),
            )
        if b.chance(0.5):
            b.box(
                (0, 2 * height, 0),
                (width * b.uniform(0.8, 1.1), b.uniform(0.02, 0.08), depth * 1.05),
                b.paint(2),
            )
    else:
        b.tube((0, height, 0), (width, height, width), b.front(0, 0.3), b.uniform(0.8, 1.2))
        if b.chance(0.7):
            b.tube(
                (0, height * b.uniform(0.6, 1.3), 0),
                (width * 1.03, height * b.uniform(0.2, 0.5), width * 1.03),
                b.front(1, 0.4),
            )
        for y in (0.0, 2 * height):
            if b.chance(0.5):
                b.tube((0, y + 0.02, 0), (width * b.uniform(0.7, 1.15), 0.025, width * 0.95), b.flat(2))
    if b.chance(0.3):
        _solid(b, (0, 2 * height + 0.05, 0), (b.uniform(0.04, 0.12), 0.06, 0.08), b.flat(1))


def _blocks(b: Builder) -> None:
    """Building blocks on each other, turned and shifted."""
    y, width = 0.0, b.uniform(0.2, 0.4)
    for _ in range(b.count(2, 6)):
        height = b.uniform(0.05, 0.17)
        shift = (b.uniform(-0.3, 0.3) * width, y + height, b.uniform(-0.3, 0.3) * width)
        size = (width * b.uniform(0.5, 1.2), height, width * b.uniform(0.5, 1.1))
        _solid(b, shift, size, b.front(b.count(0, 3), 0.15), (0, b.uniform(-45, 45), 0))
        y += 2 * height
        width *= b.uniform(0.7, 1.1)


def _cluster(b: Builder) -> None:
    """A core with parts stuck to it in random directions, mirrored or not."""
    core = (b.uniform(0.14, 0.34), b.uniform(0.14, 0.34), b.uniform(0.14, 0.34))
    _solid(b, (0, 0, 0), core, b.front(0, 0.15), _any_turn(b) if b.chance(0.3) else NO_TURN)
    symmetric = b.chance(0.65)
    for _ in range(b.count(1, 6)):
        angle, lift = b.uniform(0, 6.28), b.uniform(-1, 1)
        flat = math.sqrt(1 - lift * lift)
        at = (core[0] * flat * math.cos(angle), core[1] * lift, core[2] * flat * math.sin(angle))
        size = (b.uniform(0.03, 0.16), b.uniform(0.03, 0.2), b.uniform(0.03, 0.16))
        turn = _any_turn(b) if b.chance(0.5) else NO_TURN
        _solid(
            b,
            (at[0] * 1.1, at[1] * 1.1, at[2] * 1.1),
            size,
            b.paint(b.count(0, 3)),
            turn,
            symmetric and at[0] > 0.05,
        )


def _spiky(b: Builder) -> None:
    """A core with a ring of spikes, petals or knobs around it, facing the front or lying."""
    core, count = b.uniform(0.12, 0.26), b.count(3, 5)
    upright, start = b.chance(0.6), b.uniform(0, 6.28)
    kind = b.count(0, 2)
    petal, reach, wide = b.paint(1), b.uniform(0.1, 0.28), b.uniform(0.05, 0.11)
    if kind == 2 or b.chance(0.5):
        b.ball((0, 0, 0), (core, core, core * b.uniform(0.4, 1.0)) if upright else core, b.front(0, 0.3))
    else:
        b.tube(
            (0, 0, 0),
            (core, 0.5 * core, core),
            b.front(0),
            b.uniform(0.5, 1),
            (90, 0, 0) if upright else NO_TURN,
        )
        count = min(count, 4)
    for index in range(count):
        angle = start + 6.2832 * index / count
        along = (
            (math.cos(angle), math.sin(angle), 0.0)
            if upright
            else (math.cos(angle), b.uniform(-0.2, 0.5), math.sin(angle))
        )
        near = (along[0] * core * 0.8, along[1] * core * 0.8, along[2] * core * 0.8)
        far = (along[0] * (core + 2 * reach), along[1] * (core + 2 * reach), along[2] * (core + 2 * reach))
        middle = (0.5 * (near[0] + far[0]), 0.5 * (near[1] + far[1]), 0.5 * (near[2] + far[2]))
        if kind == 0 and b.room("frustum"):
            b.limb(near, far, wide * 1.2, petal, b.uniform(0.0, 0.2))
        elif kind == 1 and upright and b.room("box"):
            b.box(middle, (reach, wide, 0.04), petal, (0, 0, math.degrees(angle)))
        elif upright:
            b.ball(middle, (reach, wide, 0.05), petal, (0, 0, math.degrees(angle)))
        else:
            b.ball(far, wide * 1.3, petal)
    if upright and b.chance(0.5) and b.room("frustum"):
        b.limb((0, -core * 0.5, -0.02), (0, -core - b.uniform(0.3, 0.6), -0.02), 0.035, b.flat(2))


def _vessel(b: Builder) -> None:
    """A jug, pot or basket: a body with handles, perhaps a spout or a lid."""
    radius, height = b.uniform(0.16, 0.32), b.uniform(0.15, 0.34)
    round_body = b.chance(0.5)
    if round_body:
        b.ball((0, height, 0), (radius, height, radius), b.front(0, 0.3))
        b.tube(
            (0, 1.85 * height, 0),
            (0.6 * radius, b.uniform(0.04, 0.12), 0.6 * radius),
            b.paint(1),
            b.uniform(0.8, 1.5),
        )
    else:
        b.tube((0, height, 0), (radius, height, radius), b.front(0, 0.3), b.uniform(0.7, 1.5))
        b.tube((0, 2 * height, 0), (radius * b.uniform(0.8, 1.1), 0.03, radius), b.paint(1))
    grip, out = b.paint(2), radius + b.uniform(0.08, 0.18)
    style = b.count(0, 2)
    if style == 0:
        b.ball(
            (radius, 1.1 * height, 0),
            (b.uniform(0.08, 0.15), 0.5 * height, 0.035),
            grip,
            (0, 0, -10),
            pair=True,
        )
    elif style == 1:
        b.box((0.5 * (radius + out) - 0.05, 1.5 * height, 0), (0.5 * (out - radius) + 0.1, 0.03, 0.03), grip)
        b.box((out, height, 0), (0.03, 0.5 * height, 0.03), grip)
        b.box((0.5 * (radius + out) - 0.05, 0.5 * height, 0), (0.5 * (out - radius) + 0.1, 0.03, 0.03), grip)
    else:
        b.limb((radius, 1.9 * height, 0), (0.0, 2 * height + b.uniform(0.15, 0.3), 0), 0.03, grip, pair=True)
    if b.chance(0.35):
        b.limb((-0.6 * radius, height, 0), (-radius - 0.18, 1.6 * height, 0), 0.07, b.paint(1), 0.5)
    if b.chance(0.4):
        b.ball((0, 2 * height, 0), (0.5 * radius, b.uniform(0.06, 0.16), 0.5 * radius), b.paint(0))


def _vehicle(b: Builder) -> None:
    """A contraption on wheels, runners or legs."""
    width, length, height = b.uniform(0.14, 0.26), b.uniform(0.2, 0.42), b.uniform(0.06, 0.2)
    wheel = b.uniform(0.06, 0.15)
    tyre, floor = b.paint(2), wheel * 0.8
    _solid(b, (0, floor + height, 0), (width, height, length), b.front(0, 0.2))
    if b.chance(0.7):
        b.wheels(width, 0.65 * length, wheel, b.uniform(0.03, 0.07), tyre)
        b.wheels(width, -0.65 * length, wheel * b.uniform(0.8, 1.3), 0.05, tyre)
    else:
        b.box((0.8 * width, 0.03, 0), (0.04, 0.03, length), tyre, pair=True)
    for _ in range(b.count(1, 3)):
        z, size = b.uniform(-0.6, 0.6) * length, b.uniform(0.05, 0.18)
        _solid(
            b,
            (0, floor + 2 * height + 0.7 * size, z),
            (min(size, width), size, b.uniform(0.06, 0.2)),
            b.paint(b.count(0, 3)),
        )
    if b.chance(0.5):
        b.ball((0.6 * width, floor + height, length), b.uniform(0.03, 0.07), b.flat(1), pair=True)


def _plate(b: Builder) -> None:
    """Something flat that faces the front: a sign, a mask, a badge, a tile on a stand."""
    width, height, thick = b.uniform(0.2, 0.42), b.uniform(0.2, 0.42), b.uniform(0.03, 0.09)
    y = height + b.uniform(0, 0.2)
    face = b.front(0, 0.5)
    shape = b.count(0, 2)
    if shape == 0:
        b.box((0, y, 0), (width, height, thick), face)
    elif shape == 1:
        b.ball((0, y, 0), (width, height, thick * 1.5), face)
    else:
        b.tube((0, y, 0), (width, thick, height), face, 1.0, (90, 0, 0))
    for _ in range(b.count(0, 3)):
        at = (b.uniform(0.15, 0.7) * width, y + b.uniform(-0.6, 0.6) * height, thick)
        size = (b.uniform(0.03, 0.1), b.uniform(0.03, 0.1), b.uniform(0.03, 0.06))
        if b.chance(0.7):
            b.ball(at, size, b.flat(b.count(0, 3)), pair=b.chance(0.7))
        else:
            _solid(b, at, size, b.flat(b.count(0, 3)), (0, 0, b.uniform(-45, 45)))
    if b.chance(0.5):
        _solid(
            b,
            (width * 0.95, y + b.uniform(-0.5, 1.0) * height, -0.01),
            (b.uniform(0.05, 0.15), b.uniform(0.05, 0.15), thick),
            b.paint(1),
            (0, 0, b.uniform(-60, 60)),
            pair=True,
        )
    if b.chance(0.5):
        _solid(b, (0, 0.03, 0), (width * 0.6, 0.03, 0.12), b.paint(2))
        b.limb((0, y, -0.5 * thick), (0, 0.02, -0.5 * thick), 0.04, b.flat(2))


def _rod(b: Builder) -> None:
    """Something long along x, y or a slant: a dumbbell, brush, hammer or torch."""
    length, radius = b.uniform(0.3, 0.45), b.uniform(0.03, 0.09)
    turn = (0.0, 0.0, (90.0, 0.0, 50.0)[b.count(0, 2)])
    up = (-math.sin(math.radians(turn[2])), math.cos(math.radians(turn[2])))
    b.tube((0, 0, 0), (radius, length, radius), b.paint(0), b.uniform(0.6, 1.0), turn)
    for where in (1.0, -1.0):
        if b.chance(0.8):
            size = (b.uniform(0.08, 0.22), b.uniform(0.06, 0.16), b.uniform(0.06, 0.2))
            at = (where * length * up[0], where * length * up[1], 0.0)
            _solid(b, at, size, b.front(1 if where > 0 else 2, 0.15), turn)
    for _ in range(b.count(0, 3)):
        where = b.uniform(-0.7, 0.7) * length
        b_size = (radius * b.uniform(1.1, 2.2), b.uniform(0.02, 0.06), radius * b.uniform(1.1, 2.2))
        if b.room("frustum"):
            b.tube((where * up[0], where * up[1], 0), b_size, b.paint(b.count(1, 3)), 1.0, turn)


def _boot(b: Builder) -> None:
    """A shaft and a foot on a sole, along x, shorter or taller than any shoe."""
    length, width, sole = b.uniform(0.22, 0.42), b.uniform(0.12, 0.2), b.uniform(0.02, 0.09)
    shaft, side = b.uniform(0.1, 0.4), 1.0 if b.chance(0.5) else -1.0
    b.box((0, sole, 0), (length, sole, width), b.paint(1))
    b.ball(
        (side * 0.4 * length, 2 * sole + 0.05, 0),
        (0.65 * length, b.uniform(0.1, 0.2), width),
        b.paint(b.count(0, 2)),
    )
    b.tube(
        (-side * 0.45 * length, 2 * sole + shaft, 0),
        (0.5 * length, shaft, width),
        b.front(0, 0.2),
        b.uniform(0.7, 1.2),
    )
    if b.chance(0.6):
        b.tube(
            (-side * 0.45 * length, 2 * sole + 2 * shaft, 0), (0.52 * length, 0.05, width * 1.05), b.paint(2)
        )
    for lift in (0.5, 1.0, 1.5)[: b.count(0, 3)]:
        b.box((0.05 * side * length, 2 * sole + lift * shaft, 0), (0.04, 0.03, width * 0.8), b.flat(2))


def _bare(b: Builder) -> None:
    """One or two big textured solids: a ball, a cube, a cone, an egg."""
    size = (b.uniform(0.2, 0.45), b.uniform(0.2, 0.45), b.uniform(0.2, 0.45))
    if b.chance(0.4):
        size = (size[0], size[0], size[0])
    turn = (0.0, b.uniform(-60, 60), 0.0) if b.chance(0.6) else _any_turn(b)
    _solid(b, (0, 0, 0), size, b.front(0, 0.15), turn)
    if b.chance(0.5):
        _solid(
            b,
            (b.uniform(-0.3, 0.3), b.uniform(-0.1, 0.4), b.uniform(-0.2, 0.3)),
            (b.uniform(0.1, 0.3), b.uniform(0.1, 0.3), b.uniform(0.1, 0.3)),
            b.paint(1),
            _any_turn(b),
        )


def _walker(b: Builder) -> None:
    """A body of one or two segments on mirrored legs, with a head at its front and a tail."""
    girth, length, leg = b.uniform(0.12, 0.26), b.uniform(0.18, 0.4), b.uniform(0.06, 0.34)
    y, coat = leg + 0.7 * girth, b.paint(0)
    _solid(b, (0, y, 0), (girth, girth * b.uniform(0.7, 1.1), length), coat)
    for z in (0.65, -0.65)[: b.count(1, 2)]:
        b.limb(
            (0.6 * girth, y, z * length),
            (girth * b.uniform(0.6, 1.4), 0, z * length),
            b.uniform(0.03, 0.07),
            b.paint(b.count(0, 2)),
            b.uniform(0.5, 1),
            pair=True,
        )
    head, lift = b.uniform(0.08, 0.22), b.uniform(-0.1, 0.35)
    at = (0.0, y + lift + 0.5 * girth, length + 0.5 * head)
    if lift > 0.15 and b.room("frustum"):
        b.limb((0, y, 0.7 * length), at, 0.06, coat, 0.8)
    _solid(b, at, (head * b.uniform(0.7, 1.2), head, head), b.front(1, 0.1))
    if b.chance(0.8):
        b.eyes(0.5 * head, at[1] + 0.3 * head, at[2] + 0.85 * head, 0.2 * head)
    if b.chance(0.6):
        _solid(
            b,
            (0.6 * head, at[1] + head, at[2] - 0.03),
            (0.05, b.uniform(0.05, 0.18), 0.04),
            b.paint(2),
            (0, 0, -25),
            pair=True,
        )
    if b.chance(0.6):
        _solid(
            b,
            (0, y + b.uniform(0, 0.2), -length - 0.08),
            (b.uniform(0.03, 0.1), b.uniform(0.03, 0.2), 0.1),
            b.paint(1),
        )
    if b.chance(0.35):
        _solid(b, (0, y + girth, -0.1), (0.7 * girth, b.uniform(0.05, 0.2), 0.5 * length), b.paint(2))


THINGS: tuple[Callable[[Builder], None], ...] = (
    _bare,
    _blocks,
    _boot,
    _cluster,
    _cluster,
    _lathe,
    _package,
    _plate,
    _plush,
    _plush,
    _rod,
    _spiky,
    _vehicle,
    _vessel,
    _walker,
)
