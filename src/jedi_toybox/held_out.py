"""Classes that no training subject has.

Each function puts one random subject of its class on the workbench.
"""

from collections.abc import Callable

from jedi_toybox.builder import Builder


def _elephant(b: Builder) -> None:
    girth, length, leg = b.uniform(0.22, 0.28), b.uniform(0.26, 0.34), b.uniform(0.18, 0.26)
    head, y = b.uniform(0.16, 0.2), leg + 0.75 * girth
    hy, hz, skin = y + 0.35 * girth, length + 0.4 * head, b.paint(0)
    b.ball((0, y, 0), (girth, girth, length), skin)
    b.ball((0, hy, hz), (head, head * 1.05, head), skin)
    b.ball(
        (1.35 * head, hy + 0.1, hz - 0.4 * head),
        (b.uniform(0.14, 0.2), b.uniform(0.16, 0.22), 0.035),
        b.paint(1),
        (0, b.uniform(10, 35), 0),
        pair=True,
    )
    b.eyes(0.45 * head, hy + 0.3 * head, hz + 0.82 * head, 0.12 * head)
    b.limb(
        (0, hy - 0.1, hz + 0.7 * head),
        (0, b.uniform(0.04, 0.3), hz + head + b.uniform(0.08, 0.25)),
        0.38 * head,
        b.paint(b.count(0, 1)),
        0.5,
    )
    legs = b.paint(b.count(0, 1))
    for z in (0.6, -0.6):
        b.limb((0.55 * girth, y, z * length), (0.58 * girth, 0, z * length), 0.08, legs, 1.0, pair=True)
    if b.chance(0.7):
        b.box((0, hy - 0.6 * head, hz + head), (0.5 * head, 0.03, 0.09), b.flat(2), (20, 0, 0))
    if b.chance(0.4):
        b.box((0, y + girth, -0.02), (0.75 * girth, 0.05, 0.14), b.paint(2))


def _turtle(b: Builder) -> None:
    width, length, height = b.uniform(0.28, 0.34), b.uniform(0.32, 0.4), b.uniform(0.18, 0.28)
    skin = b.paint(1)
    b.ball((0, 0.14, 0), (width, height, length), b.paint(0))
    b.tube((0, 0.11, 0), (width * 1.06, 0.035, length * 1.06), b.paint(2), 0.92)
    head = b.uniform(0.09, 0.13)
    z = length + b.uniform(0.08, 0.16)
    b.limb((0, 0.13, 0.7 * length), (0, 0.2, z), 0.06, skin, 1.0)
    b.ball((0, 0.22, z + 0.3 * head), (head, head, 1.2 * head), skin)
    b.eyes(0.5 * head, 0.22 + 0.35 * head, z + 1.1 * head, 0.2 * head)
    for sign in (1.0, -1.0):
        b.ball(
            (0.85 * width, 0.06, sign * 0.62 * length),
            (0.12, 0.06, 0.09),
            skin,
            (0, -sign * 35, 0),
            pair=True,
        )
    b.limb((0, 0.08, -length), (0, 0.05, -length - 0.12), 0.04, skin, 0.2)


def _giraffe(b: Builder) -> None:
    girth, length, leg = b.uniform(0.1, 0.13), b.uniform(0.16, 0.22), b.uniform(0.26, 0.34)
    neck, head, coat = b.uniform(0.32, 0.42), b.uniform(0.065, 0.085), b.paint(0)
    y = leg + 0.7 * girth
    top, front = y + neck, length + b.uniform(0.05, 0.15)
    b.ball((0, y, 0), (girth, girth, length), coat)
    b.limb((0, y, 0.7 * length), (0, top, front), 0.07, coat, 0.65)
    b.ball(
        (0, top + 0.02, front + 0.04),
        (head, head, 1.7 * head),
        coat if b.chance(0.6) else b.paint(1),
        (15, 0, 0),
    )
    b.ball((0, top - 0.02, front + 0.04 + 1.4 * head), (0.7 * head, 0.6 * head, 0.6 * head), b.flat(1))
    b.eyes(0.75 * head, top + 0.06, front + 0.04 + 0.6 * head, 0.22 * head)
    b.ball((0.55 * head, top + 0.1, front), (0.018, 0.06, 0.018), b.flat(2), (0, 0, -10), pair=True)
    legs = b.paint(b.count(0, 1))
    for z in (0.75, -0.75):
        b.limb((0.6 * girth, y, z * length), (0.7 * girth, 0, z * length), 0.04, legs, 0.8, pair=True)
    b.box((0, y - 0.03, -length - 0.02), (0.015, 0.1, 0.015), b.flat(2), (15, 0, 0))


def _helicopter(b: Builder) -> None:
    girth, length = b.uniform(0.15, 0.2), b.uniform(0.22, 0.28)
    y = girth + b.uniform(0.08, 0.14)
    b.ball((0, y, 0.12), (girth, girth, length), b.front(0, 0.1))
    b.ball((0, y + 0.25 * girth, 0.12 + 0.5 * length), (0.8 * girth, 0.7 * girth, 0.5 * length), b.dark())
    b.limb(
        (0, y + 0.2 * girth, 0),
        (0, y + 0.5 * girth, -b.uniform(0.42, 0.52)),
        0.085,
        b.paint(b.count(0, 1)),
        0.4,
    )
    b.tube((0, y + girth + 0.03, 0.1), (0.03, 0.07, 0.03), b.flat(2))
    turn, rotor = b.uniform(0, 90), b.paint(1)
    for angle in (turn, turn + 90):
        b.box((0, y + girth + 0.1, 0.1), (b.uniform(0.42, 0.5), 0.012, 0.04), rotor, (0, angle, 0))
    b.box(
        (0.03, y + 0.5 * girth, -0.48),
        (0.01, b.uniform(0.1, 0.15), 0.025),
        b.paint(2),
        (b.uniform(0, 90), 0, 0),
    )
    b.box((girth * 0.8, 0.02, 0.1), (0.02, 0.02, 0.26), b.flat(2), pair=True)
    b.limb((0.4 * girth, y - 0.5 * girth, 0.1), (0.8 * girth, 0.02, 0.1), 0.02, b.flat(2), pair=True)
    b.ball((0, y + 0.5 * girth, -0.44), (0.03, 0.13, 0.06), b.paint(0))


def _windmill(b: Builder) -> None:
    base, tall = b.uniform(0.15, 0.21), b.uniform(0.25, 0.31)
    taper = b.uniform(0.55, 0.8)
    b.tube((0, tall, 0), (base, tall, base), b.paint(0), taper)
    cap = base * taper
    b.tube((0, 2 * tall + 0.09, 0), (cap * 1.25, 0.1, cap * 1.25), b.paint(1), b.uniform(0.02, 0.4))
    y, z, turn = 2 * tall - 0.02, cap + 0.1, b.uniform(0, 90)
    b.tube((0, y, cap + 0.03), (0.03, 0.09, 0.03), b.flat(2), 1.0, (90, 0, 0))
    sail, reach, wide = b.paint(2), b.uniform(0.19, 0.23), b.uniform(0.04, 0.065)
    for index in range(4):
        x, up = b.arrow(turn + 90 * index, reach + 0.04)
        b.box((x, y + up, z), (wide, reach, 0.012), sail, (0, 0, turn + 90 * index))
    b.ball((0, y, z + 0.02), 0.045, b.flat(1))
    b.box((0, 0.09, base * 0.95), (0.055, 0.09, 0.03), b.dark())
    for lift in (0.9, 1.35)[: b.count(0, 2)]:
        b.ball((0.05, lift * tall, base * (1 - (1 - taper) * lift / 2)), (0.03, 0.04, 0.02), b.dark())


def _cactus(b: Builder) -> None:
    pot, radius, tall = b.uniform(0.15, 0.22), b.uniform(0.09, 0.13), b.uniform(0.26, 0.34)
    skin = b.paint(0)
    b.tube((0, 0.1, 0), (pot, 0.1, pot), b.paint(1), b.uniform(1.1, 1.5))
    b.tube((0, 0.2, 0), (pot * 1.1, 0.025, pot * 1.1), b.paint(1))
    b.ball((0, 0.15 + tall, 0), (radius, tall, radius), skin)
    thick = 0.6 * radius
    for sign, low in ((1.0, b.uniform(0.3, 0.5)), (-1.0, b.uniform(0.3, 0.5)))[: b.count(1, 2)]:
        reach = radius + b.uniform(0.07, 0.13)
        b.limb((0, low, 0), (sign * reach, low + 0.04, 0), thick, skin, 0.9)
        rise = b.uniform(0.09, 0.14)
        b.ball((sign * reach, low + 0.02 + rise * 0.8, 0), (thick * 1.05, rise + 0.03, thick * 1.05), skin)
    if b.chance(0.7):
        b.ball((0, 0.17 + 2 * tall, 0), (0.07, 0.045, 0.07), b.flat(2))
    if b.chance(0.4):
        b.eyes(0.04, 0.15 + 1.3 * tall, radius * 0.92, 0.022)


HELD_OUT: dict[str, Callable[[Builder], None]] = {
    "cactus": _cactus,
    "elephant": _elephant,
    "giraffe": _giraffe,
    "helicopter": _helicopter,
    "turtle": _turtle,
    "windmill": _windmill,
}
