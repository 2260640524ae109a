"""Things without a name that people make: packages, vessels, vehicles, signs, tools, boots.

Each function puts one random thing on the workbench; parts beyond a subject's slots are left out.
"""

import math

from jedi_toybox.builder import Builder


def package(b: Builder) -> None:
    """Build a box, can or carton with a label, a lid or bands."""
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
        b.solid((0, 2 * height + 0.05, 0), (b.uniform(0.04, 0.12), 0.06, 0.08), b.flat(1))


def vessel(b: Builder) -> None:
    """Build a jug, pot or basket: a body with handles, perhaps a spout or a lid."""
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


def vehicle(b: Builder) -> None:
    """Build a contraption on wheels, runners or legs."""
    width, length, height = b.uniform(0.14, 0.26), b.uniform(0.2, 0.42), b.uniform(0.06, 0.2)
    wheel = b.uniform(0.06, 0.15)
    tyre, floor = b.paint(2), wheel * 0.8
    b.solid((0, floor + height, 0), (width, height, length), b.front(0, 0.2))
    if b.chance(0.7):
        b.wheels(width, 0.65 * length, wheel, b.uniform(0.03, 0.07), tyre)
        b.wheels(width, -0.65 * length, wheel * b.uniform(0.8, 1.3), 0.05, tyre)
    else:
        b.box((0.8 * width, 0.03, 0), (0.04, 0.03, length), tyre, pair=True)
    for _ in range(b.count(1, 3)):
        z, size = b.uniform(-0.6, 0.6) * length, b.uniform(0.05, 0.18)
        b.solid(
            (0, floor + 2 * height + 0.7 * size, z),
            (min(size, width), size, b.uniform(0.06, 0.2)),
            b.paint(b.count(0, 3)),
        )
    if b.chance(0.5):
        b.ball((0.6 * width, floor + height, length), b.uniform(0.03, 0.07), b.flat(1), pair=True)


def plate(b: Builder) -> None:
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
            b.solid(at, size, b.flat(b.count(0, 3)), (0, 0, b.uniform(-45, 45)))
    if b.chance(0.5):
        b.solid(
            (width * 0.95, y + b.uniform(-0.5, 1.0) * height, -0.01),
            (b.uniform(0.05, 0.15), b.uniform(0.05, 0.15), thick),
            b.paint(1),
            (0, 0, b.uniform(-60, 60)),
            pair=True,
        )
    if b.chance(0.5):
        b.solid((0, 0.03, 0), (width * 0.6, 0.03, 0.12), b.paint(2))
        b.limb((0, y, -0.5 * thick), (0, 0.02, -0.5 * thick), 0.04, b.flat(2))


def rod(b: Builder) -> None:
    """Something long along x, y or a slant: a dumbbell, brush, hammer or torch."""
    length, radius = b.uniform(0.3, 0.45), b.uniform(0.03, 0.09)
    turn = (0.0, 0.0, (90.0, 0.0, 50.0)[b.count(0, 2)])
    up = (-math.sin(math.radians(turn[2])), math.cos(math.radians(turn[2])))
    b.tube((0, 0, 0), (radius, length, radius), b.paint(0), b.uniform(0.6, 1.0), turn)
    for where in (1.0, -1.0):
        if b.chance(0.8):
            size = (b.uniform(0.08, 0.22), b.uniform(0.06, 0.16), b.uniform(0.06, 0.2))
            at = (where * length * up[0], where * length * up[1], 0.0)
            b.solid(at, size, b.front(1 if where > 0 else 2, 0.15), turn)
    for _ in range(b.count(0, 3)):
        where = b.uniform(-0.7, 0.7) * length
        b_size = (radius * b.uniform(1.1, 2.2), b.uniform(0.02, 0.06), radius * b.uniform(1.1, 2.2))
        if b.room("frustum"):
            b.tube((where * up[0], where * up[1], 0), b_size, b.paint(b.count(1, 3)), 1.0, turn)


def boot(b: Builder) -> None:
    """Build a shaft and a foot on a sole, along x, shorter or taller than any shoe."""
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
