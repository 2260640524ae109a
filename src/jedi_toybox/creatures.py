"""Creatures that swim, creep or flutter, and figures.

Each function puts one random subject of its class on the workbench (any unit of length).
"""

from collections.abc import Callable

from jedi_toybox.builder import Builder


def _fish(b: Builder) -> None:
    # Seen from its side: a fish swims along x.
    length, height, thick = b.uniform(0.34, 0.42), b.uniform(0.16, 0.3), b.uniform(0.1, 0.18)
    y = height + 0.05
    b.ball((0.06, y, 0), (length, height, thick), b.paint(0))
    fins, tail = b.paint(1), b.uniform(0.14, 0.22)
    for sign in (1.0, -1.0):
        b.ball((-length - 0.02, y + sign * 0.5 * tail, 0), (tail * 0.6, tail, 0.025), fins, (0, 0, sign * 40))
    b.ball(
        (b.uniform(-0.05, 0.08), y + height, 0),
        (0.6 * length, b.uniform(0.05, 0.13), 0.025),
        b.paint(1),
        (0, 0, b.uniform(-5, 15)),
    )
    b.ball((0.02, y - 0.1 * height, thick), (0.12, 0.06, 0.03), b.paint(2), (0, 10, b.uniform(10, 40)))
    eye, iris = b.uniform(0.035, 0.06), b.flat(2)
    for sign in (1.0, -1.0):
        b.ball(
            (0.06 + 0.62 * length, y + 0.25 * height, sign * 0.72 * thick),
            eye,
            b.dark() if sign < 0 else iris,
        )
    b.ball((0.075 + 0.62 * length, y + 0.25 * height, 0.72 * thick + 0.7 * eye), 0.55 * eye, b.dark())
    if b.chance(0.6):
        b.tube(
            (0.06 - b.uniform(0.0, 0.3) * length, y, 0),
            (height * 1.0, 0.035, thick * 1.02),
            b.paint(2),
            1.0,
            (0, 0, 90),
        )
    b.tube(
        (0.06 + 1.0 * length, y - 0.08 * height, 0),
        (0.2 * height, 0.03, 0.5 * thick),
        b.flat(1),
        1.0,
        (0, 0, 90),
    )


def _frog(b: Builder) -> None:
    width, height, length = b.uniform(0.24, 0.32), b.uniform(0.16, 0.22), b.uniform(0.26, 0.34)
    skin, eye = b.paint(0), b.uniform(0.07, 0.1)
    b.ball((0, height + 0.04, 0), (width, height, length), skin, (-b.uniform(8, 22), 0, 0))
    b.ball((0.55 * width, 2 * height + 0.07, 0.5 * length), eye, b.paint(1), pair=True)
    b.ball((0.55 * width, 2 * height + 0.08, 0.5 * length + 0.75 * eye), 0.55 * eye, b.dark(), pair=True)
    b.ball((0, height - 0.02, 0.3 * length), (0.75 * width, 0.75 * height, 0.62 * length), b.front(1))
    b.ball((0.95 * width, 0.12, -0.35 * length), (0.12, 0.12, 0.2), b.paint(0), (0, -20, 0), pair=True)
    b.limb(
        (0.75 * width, height, 0.5 * length),
        (0.85 * width, 0.02, 0.85 * length),
        0.06,
        b.paint(2),
        0.8,
        pair=True,
    )
    b.box((0.88 * width, 0.015, 0.95 * length), (0.09, 0.015, 0.09), b.flat(2), (0, 20, 0), pair=True)
    b.box((0, height + 0.1, 0.92 * length), (0.45 * width, 0.012, 0.05), b.dark())


def _butterfly(b: Builder) -> None:
    wing, low = b.uniform(0.2, 0.28), b.uniform(0.13, 0.2)
    body = b.uniform(0.22, 0.3)
    y, tilt = body + 0.1, b.uniform(0, 30)
    b.ball((0, y, 0), (0.06, body, 0.06), b.paint(0))
    b.ball((0, y + body + 0.04, 0), b.uniform(0.07, 0.1), b.paint(0))
    b.ball(
        (0.05 + wing * 0.85, y + 0.17, -0.05),
        (wing, wing * b.uniform(0.65, 0.9), 0.025),
        b.front(1),
        (0, tilt, b.uniform(10, 40)),
        pair=True,
    )
    b.ball(
        (0.05 + low * 0.8, y - 0.16, -0.03),
        (low, low * b.uniform(0.7, 1.0), 0.025),
        b.paint(2),
        (0, tilt, -30),
        pair=True,
    )
    b.eyes(0.04, y + body + 0.06, 0.07, 0.03)
    b.limb(
        (0.03, y + body + 0.1, 0),
        (b.uniform(0.08, 0.16), y + body + 0.25, 0.03),
        0.014,
        b.flat(0),
        1.0,
        pair=True,
    )


def _snail(b: Builder) -> None:
    # Creeps along x, so that its shell shows.
    shell, length = b.uniform(0.24, 0.34), b.uniform(0.38, 0.46)
    skin = b.paint(0)
    b.ball((0.05, 0.08, 0), (length, 0.09, 0.12), skin)
    b.ball((0.05 + 0.85 * length, 0.2, 0), (0.09, 0.17, 0.09), skin, (0, 0, -15))
    b.tube((-0.08, shell + 0.06, 0), (shell, 0.11, shell), b.front(1, 0.35), b.uniform(0.55, 0.9), (90, 0, 0))
    b.tube((-0.08, shell + 0.06, 0.13), (0.6 * shell, 0.04, 0.6 * shell), b.paint(2), 0.8, (90, 0, 0))
    b.ball((-0.08, shell + 0.06, 0.17), (0.28 * shell, 0.28 * shell, 0.04), b.flat(1))
    x = 0.08 + 0.95 * length
    for z in (0.06, -0.06):
        b.limb((x, 0.3, z), (x + 0.06, 0.48, 1.6 * z), 0.016, skin)
        b.ball((x + 0.06, 0.49, 1.6 * z), 0.035, b.dark())


def _octopus(b: Builder) -> None:
    head, tall = b.uniform(0.22, 0.3), b.uniform(1.0, 1.4)
    skin, y = b.paint(0), 0.2 + b.uniform(0.2, 0.3)
    b.ball((0, y + 0.1, 0), (head, head * tall, head), b.front(0))
    b.eyes(0.4 * head, y + 0.08, 0.93 * head, 0.2 * head)
    arms = b.paint(b.count(0, 1))
    reach, radius = b.uniform(0.32, 0.5), b.uniform(0.05, 0.08)
    b.limb((0.1, y - 0.08, 0.1), (0.5 * reach, 0.02, 0.9 * reach), radius, arms, 0.5, pair=True)
    b.limb((0.15, y - 0.08, -0.02), (reach, 0.02, 0.1), radius, skin, 0.5, pair=True)
    b.limb((0, y - 0.08, -0.1), (0, 0.02, -reach), radius, skin, 0.5)
    b.ball((0.5 * reach, 0.035, 0.95 * reach), (0.06, 0.035, 0.06), arms, pair=True)
    b.ball((reach, 0.035, 0.1), (0.08, 0.035, 0.05), b.paint(1), pair=True)


def _snowman(b: Builder) -> None:
    low, mid, head = b.uniform(0.24, 0.32), b.uniform(0.17, 0.23), b.uniform(0.13, 0.18)
    snow = b.paint(0)
    mid_y = 1.75 * low + 0.75 * mid
    y = mid_y + 0.8 * mid + 0.8 * head
    b.ball((0, 0.92 * low, 0), low, snow)
    b.ball((0, mid_y, 0), mid, snow if b.chance(0.6) else b.front(1))
    b.ball((0, y, 0), head, snow if b.chance(0.7) else b.paint(2))
    b.eyes(0.38 * head, y + 0.25 * head, 0.88 * head, 0.14 * head)
    b.limb(
        (0, y - 0.05 * head, 0.8 * head),
        (0, y - 0.1 * head, head + b.uniform(0.08, 0.2)),
        0.2 * head,
        b.flat(1),
        0.05,
    )
    buttons = b.dark()
    for lift in (0.35, -0.25):
        b.ball((0, mid_y + lift * mid, mid * 0.95), 0.032, buttons)
    if b.chance(0.7):
        b.limb(
            (0.85 * mid, mid_y + 0.2 * mid, 0),
            (mid + b.uniform(0.12, 0.24), mid_y + b.uniform(-0.1, 0.25), 0.05),
            0.022,
            b.flat(2),
            0.7,
            pair=True,
        )
    if b.chance(0.6):
        hat = b.paint(2)
        b.tube((0, y + 0.75 * head, 0), (1.05 * head, 0.025, 1.05 * head), hat)
        b.tube(
            (0, y + 0.8 * head + 0.1, 0),
            (0.7 * head, b.uniform(0.07, 0.15), 0.7 * head),
            hat,
            b.uniform(0.7, 1.0),
        )


def _doll(b: Builder) -> None:
    head, skirt, tall = b.uniform(0.13, 0.18), b.uniform(0.2, 0.32), b.uniform(0.22, 0.3)
    leg, skin, hair = b.uniform(0.06, 0.22), b.flat(0), b.paint(1)
    top = leg + 2 * tall
    y = top + 0.85 * head
    b.tube((0, leg + tall, 0), (skirt, tall, skirt * 0.85), b.front(2, 0.15), b.uniform(0.25, 0.55))
    b.ball((0, y, 0), (head * 0.92, head, head * 0.92), skin)
    b.ball((0, y + 0.18 * head, -0.2 * head), (1.08 * head, 1.02 * head, head), hair)
    b.ball(
        (1.1 * head, y - b.uniform(-0.3, 0.5) * head, -0.1),
        (0.35 * head, b.uniform(0.3, 0.9) * head, 0.35 * head),
        hair,
        pair=True,
    )
    b.eyes(0.34 * head, y + 0.02 * head, 0.86 * head, 0.12 * head)
    b.limb(
        (0.35 * skirt, top - 0.05, 0),
        (skirt + 0.05, top - b.uniform(0.0, 0.32), 0.06),
        0.045,
        b.paint(b.count(0, 2)),
        0.8,
        True,
    )
    b.limb((0.3 * skirt, leg + 0.05, 0), (0.3 * skirt, 0.0, 0), 0.05, skin, 1.0, pair=True)
    b.box((0.3 * skirt, 0.03, 0.04), (0.05, 0.03, 0.09), b.dark(), pair=True)


def _robot(b: Builder) -> None:
    width, height, head = b.uniform(0.16, 0.25), b.uniform(0.16, 0.24), b.uniform(0.1, 0.16)
    leg, metal = b.uniform(0.16, 0.28), b.paint(0)
    base = leg + height
    y = base + height + head + 0.05
    if b.chance(0.75):
        b.box((0, base, 0), (width, height, 0.65 * width), b.front(0, 0.4))
    else:
        b.ball((0, base, 0), (width, height, 0.8 * width), b.front(0, 0.4))
    if b.chance(0.7):
        b.box((0, y, 0), (head * b.uniform(0.9, 1.5), head, head), b.paint(1))
    else:
        b.ball((0, y, 0), (head * 1.1, head, head), b.paint(1))
    b.ball((0.42 * head, y + 0.15 * head, 0.98 * head), (0.2 * head, 0.2 * head, 0.1), b.dark(), pair=True)
    b.box((0, y - 0.5 * head, head), (0.5 * head, 0.1 * head, 0.03), b.dark())
    arms, lift = b.paint(2), b.uniform(-0.3, 0.25)
    hand = (width + b.uniform(0.08, 0.2), base + lift, b.uniform(0, 0.15))
    b.limb((width, base + 0.7 * height, 0), hand, 0.05, arms, pair=True)
    b.ball(hand, b.uniform(0.055, 0.08), b.flat(1), pair=True)
    b.limb(
        (0.5 * width, base - 0.8 * height, 0),
        (0.55 * width, 0.05, 0),
        b.uniform(0.05, 0.08),
        metal,
        pair=True,
    )
    b.box((0.58 * width, 0.04, 0.04), (0.42 * width, 0.04, 0.12), b.paint(2), pair=True)
    if b.chance(0.7):
        b.limb((0, y + head, 0), (0, y + head + b.uniform(0.08, 0.2), 0), 0.016, metal)
        b.ball((0, y + head + 0.14, 0), 0.04, b.flat(2))


CREATURES: dict[str, Callable[[Builder], None]] = {
    "butterfly": _butterfly,
    "doll": _doll,
    "fish": _fish,
    "frog": _frog,
    "octopus": _octopus,
    "robot": _robot,
    "snail": _snail,
    "snowman": _snowman,
}
