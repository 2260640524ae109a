"""Things without a name: random assemblies in broad families.

Each function puts one random thing on the workbench; parts beyond a subject's slots are left out.
"""

import math
from collections.abc import Callable

from jedi_toybox import gadgets
from jedi_toybox.builder import NO_TURN, Builder


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
    """Build a soft creature: a body, perhaps a head, ears, eyes, arms and feet."""
    width, height = b.uniform(0.2, 0.36), b.uniform(0.2, 0.36)
    leg = b.uniform(0.02, 0.2)
    base, coat = leg + height, b.front(0, 0.25)
    b.ball((0, base, 0), (width, height, width * b.uniform(0.6, 1.0)), coat)
    face_y, face_w, face_z = base + 0.3 * height, width, 0.75 * width
    if b.chance(0.6):
        head = b.uniform(0.14, 0.28)
        face_y, face_w, face_z = base + height + 0.7 * head, head, 0.85 * head
        b.solid((0, face_y, 0), (head * b.uniform(0.8, 1.3), head, head), b.paint(b.count(0, 1)))
    if b.chance(0.75):
        b.eyes(
            b.uniform(0.3, 0.5) * face_w, face_y + 0.1 * face_w, face_z + 0.02, b.uniform(0.1, 0.28) * face_w
        )
    if b.chance(0.6):
        b.solid(
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
        b.solid((0, face_y - 0.25 * face_w, face_z + 0.05), (0.3 * face_w, 0.2 * face_w, 0.1), b.flat(2))


def _blocks(b: Builder) -> None:
    """Build building blocks on each other, turned and shifted."""
    y, width = 0.0, b.uniform(0.2, 0.4)
    for _ in range(b.count(2, 6)):
        height = b.uniform(0.05, 0.17)
        shift = (b.uniform(-0.3, 0.3) * width, y + height, b.uniform(-0.3, 0.3) * width)
        size = (width * b.uniform(0.5, 1.2), height, width * b.uniform(0.5, 1.1))
        b.solid(shift, size, b.front(b.count(0, 3), 0.15), (0, b.uniform(-45, 45), 0))
        y += 2 * height
        width *= b.uniform(0.7, 1.1)


def _cluster(b: Builder) -> None:
    """Build a core with parts stuck to it in random directions, mirrored or not."""
    core = (b.uniform(0.14, 0.34), b.uniform(0.14, 0.34), b.uniform(0.14, 0.34))
    b.solid((0, 0, 0), core, b.front(0, 0.15), b.any_turn() if b.chance(0.3) else NO_TURN)
    symmetric = b.chance(0.65)
    for _ in range(b.count(1, 6)):
        angle, lift = b.uniform(0, 6.28), b.uniform(-1, 1)
        flat = math.sqrt(1 - lift * lift)
        at = (core[0] * flat * math.cos(angle), core[1] * lift, core[2] * flat * math.sin(angle))
        size = (b.uniform(0.03, 0.16), b.uniform(0.03, 0.2), b.uniform(0.03, 0.16))
        turn = b.any_turn() if b.chance(0.5) else NO_TURN
        b.solid(
            (at[0] * 1.1, at[1] * 1.1, at[2] * 1.1),
            size,
            b.paint(b.count(0, 3)),
            turn,
            symmetric and at[0] > 0.05,
        )


def _spiky(b: Builder) -> None:
    """Build a core with a ring of spikes, petals or knobs around it, facing the front or lying."""
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


def _bare(b: Builder) -> None:
    """One or two big textured solids: a ball, a cube, a cone, an egg."""
    size = (b.uniform(0.2, 0.45), b.uniform(0.2, 0.45), b.uniform(0.2, 0.45))
    if b.chance(0.4):
        size = (size[0], size[0], size[0])
    turn = (0.0, b.uniform(-60, 60), 0.0) if b.chance(0.6) else b.any_turn()
    b.solid((0, 0, 0), size, b.front(0, 0.15), turn)
    if b.chance(0.5):
        b.solid(
            (b.uniform(-0.3, 0.3), b.uniform(-0.1, 0.4), b.uniform(-0.2, 0.3)),
            (b.uniform(0.1, 0.3), b.uniform(0.1, 0.3), b.uniform(0.1, 0.3)),
            b.paint(1),
            b.any_turn(),
        )


def _walker(b: Builder) -> None:
    """Build a body of one or two segments on mirrored legs, with a head at its front and a tail."""
    girth, length, leg = b.uniform(0.12, 0.26), b.uniform(0.18, 0.4), b.uniform(0.06, 0.34)
    y, coat = leg + 0.7 * girth, b.paint(0)
    b.solid((0, y, 0), (girth, girth * b.uniform(0.7, 1.1), length), coat)
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
    b.solid(at, (head * b.uniform(0.7, 1.2), head, head), b.front(1, 0.1))
    if b.chance(0.8):
        b.eyes(0.5 * head, at[1] + 0.3 * head, at[2] + 0.85 * head, 0.2 * head)
    if b.chance(0.6):
        b.solid(
            (0.6 * head, at[1] + head, at[2] - 0.03),
            (0.05, b.uniform(0.05, 0.18), 0.04),
            b.paint(2),
            (0, 0, -25),
            pair=True,
        )
    if b.chance(0.6):
        b.solid(
            (0, y + b.uniform(0, 0.2), -length - 0.08),
            (b.uniform(0.03, 0.1), b.uniform(0.03, 0.2), 0.1),
            b.paint(1),
        )
    if b.chance(0.35):
        b.solid((0, y + girth, -0.1), (0.7 * girth, b.uniform(0.05, 0.2), 0.5 * length), b.paint(2))


THINGS: tuple[Callable[[Builder], None], ...] = (
    _bare,
    _blocks,
    gadgets.boot,
    _cluster,
    _cluster,
    _lathe,
    gadgets.package,
    gadgets.plate,
    _plush,
    _plush,
    gadgets.rod,
    _spiky,
    gadgets.vehicle,
    gadgets.vessel,
    _walker,
)
