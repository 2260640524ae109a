"""Plants, buildings and food. Each function puts one random subject of its class on the workbench."""

import math
from collections.abc import Callable

from jedi_toybox.builder import Builder


def _mushroom(b: Builder) -> None:
    stem, height, cap = b.uniform(0.07, 0.15), b.uniform(0.16, 0.3), b.uniform(0.26, 0.42)
    rise = cap * b.uniform(0.4, 0.85)
    b.tube((0, height, 0), (stem, height, stem), b.front(1), b.uniform(0.6, 1.0))
    b.ball((0, 2 * height, 0), (cap, rise, cap), b.paint(0))
    b.tube(
        (0, 2 * height - 0.35 * rise, 0),
        (cap * 0.94, 0.3 * rise + 0.02, cap * 0.94),
        b.paint(2),
        b.uniform(1.3, 2.2),
    )
    spot, first = b.flat(1), b.uniform(0, 60)
    for index in range(b.count(0, 5)):
        angle = math.radians(first + index * 61.0 - 120.0)
        x, z = 0.66 * cap * math.sin(angle), 0.66 * cap * math.cos(angle)
        b.ball((x, 2 * height + 0.66 * rise, z), (b.uniform(0.04, 0.08), 0.04, 0.06), spot)
    if b.chance(0.35):
        b.tube((cap * 0.7, 0.09, 0.1), (0.04, 0.09, 0.04), b.paint(1))
        b.ball((cap * 0.7, 0.19, 0.1), (0.11, 0.07, 0.11), b.paint(0))


def _tree(b: Builder) -> None:
    trunk, height = b.uniform(0.05, 0.1), b.uniform(0.15, 0.3)
    b.tube((0, height, 0), (trunk, height, trunk), b.paint(2), b.uniform(0.6, 1.0))
    leaves = b.paint(0)
    if b.chance(0.4):
        width, tiers = b.uniform(0.26, 0.38), b.count(2, 4)
        for tier in range(tiers):
            size = width * (1 - 0.22 * tier)
            b.tube(
                (0, 1.6 * height + 0.2 * tier + 0.15, 0),
                (size, 0.19, size),
                leaves,
                0.05 if tier == tiers - 1 else 0.3,
            )
        if b.chance(0.5):
            b.ball((0, 1.6 * height + 0.2 * tiers + 0.17, 0), 0.05, b.flat(1))
    else:
        crown = b.uniform(0.2, 0.28)
        top = 2 * height + 0.6 * crown
        b.ball((0, top + 0.1, 0), (crown, crown * b.uniform(0.8, 1.2), crown), leaves)
        for index in range(b.count(1, 3)):
            angle = 2.1 * index + b.uniform(0, 2)
            b.ball(
                (0.8 * crown * math.cos(angle), top + b.uniform(-0.05, 0.1), 0.5 * crown * math.sin(angle)),
                crown * b.uniform(0.55, 0.85),
                leaves if b.chance(0.6) else b.paint(0),
            )
        if b.chance(0.6):
            fruit = b.flat(1)
            for x, lift in ((-0.5, 0.3), (0.45, 0.75), (0.15, -0.1), (-0.1, 0.9)):
                b.ball((x * crown, top + lift * crown, crown * 0.9), 0.05, fruit)
    b.limb((0, 1.1 * height, 0), (b.uniform(0.12, 0.22), 1.8 * height, 0.05), 0.035, b.flat(2), 0.6)


def _flower(b: Builder) -> None:
    pot, tall, petal = b.uniform(0.13, 0.2), b.uniform(0.1, 0.17), b.uniform(0.1, 0.15)
    b.tube((0, tall, 0), (pot, tall, pot), b.front(2, 0.0), b.uniform(1.15, 1.6))
    b.tube((0, 2 * tall, 0), (pot * 1.12, 0.03, pot * 1.12), b.paint(2))
    y = 2 * tall + b.uniform(0.28, 0.45)
    green = b.flat(1)
    b.limb((0, 2 * tall, 0), (0, y, 0), 0.025, green)
    b.ball(
        (0.13, 2 * tall + 0.12, 0.02), (0.13, 0.035, 0.06), b.paint(1), (0, 0, b.uniform(20, 45)), pair=True
    )
    center, leaves, petals = b.uniform(0.07, 0.11), b.paint(0), 5
    for index in range(petals):
        angle = 2 * math.pi * (index + 0.25) / petals
        reach = center + 0.7 * petal
        b.ball(
            (reach * math.cos(angle), y + reach * math.sin(angle), 0.03),
            (petal, petal * 0.62, 0.035),
            leaves,
            (0, 0, math.degrees(angle)),
        )
    b.ball((0, y, 0.06), (center, center, 0.05), b.paint(2))


def _house(b: Builder) -> None:
    width, height, depth = b.uniform(0.24, 0.34), b.uniform(0.16, 0.26), b.uniform(0.2, 0.32)
    walls = b.paint(0)
    b.box((0, height, 0), (width, height, depth), walls)
    if b.chance(0.7):
        # The gable is a box on its edge, half of it inside the walls; two slabs lie on it.
        half, slab = 0.7 * width, 0.02
        b.box((0, 2 * height, 0), (half, half, 0.98 * depth), walls, (0, 0, 45))
        reach = 1.2 * half
        along = (half + slab) * math.sqrt(0.5)
        back = (reach - half) * math.sqrt(0.5)
        b.box(
            (along + back, 2 * height + along - back, 0),
            (reach, slab, depth * b.uniform(1.05, 1.2)),
            b.paint(1),
            (0, 0, -45),
            pair=True,
        )
        roof = 2 * height + 1.41 * half
    else:
        rise = b.uniform(0.12, 0.2)
        cover = b.uniform(0.02, 0.35)
        b.tube((0, 2 * height + rise, 0), (width * 1.4, rise, depth * 1.4), b.paint(1), cover)
        roof = 2 * height + 2 * rise
    if b.chance(0.7):
        b.tube((0.5 * width, roof - 0.08, -0.2 * depth), (0.05, 0.13, 0.05), b.paint(2))
    side, door = b.uniform(-0.45, 0.45) * width, b.uniform(0.5, 0.65) * height
    b.box((side, door, depth), (0.065, door, 0.015), b.flat(2))
    b.ball((side + 0.04, door, depth + 0.02), 0.014, b.dark())
    pane = b.dark()
    x = side + (0.85 if side < 0 else -0.85) * width * 0.7
    b.ball((x, 1.2 * height, depth), (0.07, 0.07, 0.02), pane)
    if b.chance(0.6):
        b.ball((0, 2 * height + 0.06, depth), (0.05, 0.05, 0.03), pane)
    b.ball((width, 1.2 * height, 0), (0.02, 0.08, 0.08), pane, pair=True)
    b.face(b.uniform(-35, 35))


def _castle(b: Builder) -> None:
    width, wall, tower = b.uniform(0.22, 0.3), b.uniform(0.14, 0.2), b.uniform(0.085, 0.13)
    stone, tall = b.paint(0), b.uniform(0.25, 0.36)
    b.box((0, wall, 0), (width, wall, b.uniform(0.12, 0.2)), stone)
    b.tube(
        (width, tall, 0.05),
        (tower, tall, tower),
        stone if b.chance(0.5) else b.paint(2),
        b.uniform(0.85, 1.0),
        pair=True,
    )
    rise = b.uniform(0.1, 0.18)
    b.tube((width, 2 * tall + rise, 0.05), (tower * 1.25, rise, tower * 1.25), b.paint(1), 0.03, pair=True)
    keep = b.uniform(0.25, 0.4)
    b.box((0, keep, -0.06), (0.12, keep, 0.1), b.front(0, 0.3))
    b.box((0, 2 * keep + 0.02, -0.06), (0.15, 0.035, 0.13), b.paint(2))
    if b.chance(0.6):
        b.tube((0, 2 * keep + 0.14, -0.06), (0.14, 0.1, 0.12), b.paint(1), 0.03)
    b.box((0, 0.09, 0.2), (0.08, 0.09, 0.02), b.dark())
    b.ball((0, 0.18, 0.2), (0.08, 0.07, 0.02), b.dark())
    b.ball((width, 1.45 * tall, 0.05 + tower), (0.035, 0.06, 0.03), b.dark(), pair=True)


def _tower(b: Builder) -> None:
    base, tall = b.uniform(0.13, 0.18), b.uniform(0.28, 0.36)
    taper = b.uniform(0.5, 0.8)
    top = base * taper
    b.tube((0, tall, 0), (base, tall, base), b.paint(0), taper)
    b.tube((0, 2 * tall + 0.015, 0), (top * 1.5, 0.025, top * 1.5), b.paint(1))
    b.tube((0, 2 * tall + 0.1, 0), (top * 0.85, 0.075, top * 0.85), b.flat(2))
    b.tube((0, 2 * tall + 0.25, 0), (top * 1.2, b.uniform(0.06, 0.12), top * 1.2), b.paint(1), 0.05)
    b.box((0, 0.08, base * 0.96), (0.05, 0.08, 0.02), b.dark())
    for height in (0.75, 1.25, 1.7)[: b.count(1, 3)]:
        radius = base * (1 - (1 - taper) * height / 2)
        b.ball((0, height * tall, radius), (0.03, 0.045, 0.02), b.dark())
    b.tube((0, 0.03, 0), (base * b.uniform(1.2, 1.6), 0.03, base * 1.4), b.paint(2))


def _cake(b: Builder) -> None:
    radius, height, tiers = b.uniform(0.32, 0.46), b.uniform(0.1, 0.17), b.count(1, 3)
    y, icing = 0.03, b.paint(1)
    b.tube((0, 0.015, 0), (radius * 1.2, 0.015, radius * 1.2), b.flat(2))
    for tier in range(tiers):
        b.tube((0, y + height, 0), (radius, height, radius), b.paint(tier % 2), b.uniform(0.9, 1.0))
        y, radius = y + 2 * height, radius * (0.68 if tier < tiers - 1 else 1.0)
    if b.chance(0.5):
        b.ball((0, y, 0), (0.95 * radius, 0.05, 0.95 * radius), icing)
    if b.chance(0.4):
        for x in (-0.5, 0.0, 0.5):
            b.box((x * radius, y + 0.11, 0), (0.025, 0.1, 0.025), b.flat(2))
            b.ball((x * radius, y + 0.24, 0), (0.025, 0.045, 0.025), b.flat(1))
    else:
        cherry = b.flat(2)
        for index in range(b.count(1, 6)):
            angle = 1.047 * index + 0.5
            b.ball((0.7 * radius * math.cos(angle), y + 0.05, 0.7 * radius * math.sin(angle)), 0.06, cherry)


def _icecream(b: Builder) -> None:
    radius, tall = b.uniform(0.14, 0.19), b.uniform(0.24, 0.32)
    b.tube((0, tall, 0), (radius, tall, radius), b.paint(2), b.uniform(2.5, 6.0))
    b.tube((0, 2 * tall, 0), (radius * 1.08, 0.03, radius * 1.08), b.paint(2))
    y, scoops = 2 * tall + 0.6 * radius, b.count(1, 3)
    for index in range(scoops):
        b.ball(
            (b.uniform(-0.02, 0.02), y, 0),
            (radius * (1.12 - 0.12 * index), radius * 0.95, radius * (1.12 - 0.12 * index)),
            b.paint(index),
        )
        y += radius * 1.15
    if b.chance(0.6):
        b.ball((0, y - 0.1 * radius, 0), 0.06, b.flat(2))
    if b.chance(0.6):
        b.box((0.08, y - 0.1, -0.02), (0.03, 0.14, 0.03), b.paint(0), (0, 0, -25))
    if b.chance(0.4):
        b.tube((-0.08, y - 0.05, 0), (0.02, 0.16, 0.02), b.paint(1), 1.0, (0, 0, 20))


def _apple(b: Builder) -> None:
    width, height = b.uniform(0.32, 0.42), b.uniform(0.3, 0.42)
    skin = b.front(0, 0.15)
    b.ball((0, height, 0), (width, height, width), skin)
    b.ball((0.25 * width, 1.15 * height, 0), (0.8 * width, 0.85 * height, 0.9 * width), skin, pair=True)
    b.limb(
        (0, 1.8 * height, 0),
        (b.uniform(-0.08, 0.08), 2 * height + b.uniform(0.1, 0.2), 0),
        0.03,
        b.flat(2),
        0.9,
    )
    for sign in (1.0, -1.0)[: b.count(1, 2)]:
        b.ball(
            (sign * 0.15, 2 * height + 0.06, 0.02),
            (0.15, 0.03, 0.07),
            b.paint(1),
            (0, 0, sign * b.uniform(10, 40)),
        )
    if b.chance(0.3):
        b.ball((0.6 * width, 1.2 * height, 0.75 * width), (0.08, 0.06, 0.06), b.paint(2))
        b.ball((0.75 * width, 1.3 * height, 0.78 * width), 0.05, b.dark())


def _pumpkin(b: Builder) -> None:
    width, height = b.uniform(0.34, 0.42), b.uniform(0.24, 0.34)
    skin = b.paint(0)
    b.ball((0, height, 0), (width * 0.75, height, width * 0.85), skin)
    b.ball((0.32 * width, height, 0), (0.6 * width, 0.97 * height, 0.8 * width), skin, pair=True)
    b.limb(
        (0, 1.9 * height, 0),
        (b.uniform(-0.1, 0.1), 2 * height + b.uniform(0.1, 0.2), 0),
        0.06,
        b.paint(1),
        0.6,
    )
    if b.chance(0.65):
        face = b.dark()
        size = b.uniform(0.06, 0.09)
        b.tube((0.36 * width, 1.25 * height, 0.78 * width), (size, size, 0.06), face, 0.02, pair=True)
        b.box((0, 0.7 * height, 0.82 * width), (b.uniform(0.1, 0.2), b.uniform(0.03, 0.06), 0.05), face)
    if b.chance(0.5):
        b.ball((0.2, 2 * height, 0.05), (0.14, 0.02, 0.1), b.paint(2), (0, 0, -15))
    b.ball((0, height, -0.3 * width), (0.75 * width, 0.95 * height, 0.6 * width), skin)


def _burger(b: Builder) -> None:
    radius, bun = b.uniform(0.38, 0.46), b.uniform(0.07, 0.11)
    crust = b.paint(0)
    b.tube((0, bun, 0), (radius, bun, radius), crust, b.uniform(1.0, 1.15))
    y = 2 * bun
    for role in range(b.count(2, 4)):
        thick = b.uniform(0.02, 0.055)
        wide = radius * b.uniform(0.98, 1.14)
        if b.chance(0.25):
            b.box(
                (0, y + 0.5 * thick, 0),
                (0.85 * wide, 0.5 * thick, 0.85 * wide),
                b.flat(role),
                (0, b.uniform(0, 90), 0),
            )
            y += thick
        else:
            b.tube((0, y + thick, 0), (wide, thick, wide), b.paint(role + 1))
            y += 2 * thick
    b.ball((0, y, 0), (radius * 1.05, b.uniform(0.2, 0.32), radius * 1.05), crust)
    for x, z in ((0.0, 0.15), (-0.18, 0.08), (0.17, 0.02), (0.05, -0.1))[: b.count(0, 4)]:
        b.ball((x, y + 0.24, z), (0.035, 0.045, 0.035), b.flat(1))


def _gift(b: Builder) -> None:
    width, height, depth = b.uniform(0.25, 0.42), b.uniform(0.18, 0.38), b.uniform(0.24, 0.4)
    ribbon, band = b.paint(1), b.uniform(0.04, 0.08)
    b.box((0, height, 0), (width, height, depth), b.paint(0))
    b.box((0, 2 * height, 0), (width * 1.05, 0.05, depth * 1.05), b.paint(b.count(0, 2)))
    b.box((0, height + 0.03, 0), (band, height + 0.03, depth * 1.065), ribbon)
    b.box((0, height + 0.03, 0), (width * 1.065, height + 0.03, band), ribbon)
    loop = b.uniform(0.1, 0.17)
    b.ball(
        (0.9 * loop, 2 * height + 0.12, 0),
        (loop, 0.6 * loop, 0.4 * loop),
        ribbon,
        (0, 0, b.uniform(15, 40)),
        pair=True,
    )
    b.ball((0, 2 * height + 0.08, 0), 0.05, b.flat(2))


OBJECTS: dict[str, Callable[[Builder], None]] = {
    "apple": _apple,
    "burger": _burger,
    "cake": _cake,
    "castle": _castle,
    "flower": _flower,
    "gift": _gift,
    "house": _house,
    "icecream": _icecream,
    "mushroom": _mushroom,
    "pumpkin": _pumpkin,
    "tower": _tower,
    "tree": _tree,
}
