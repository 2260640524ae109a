"""Animals on legs.

Each function puts one random subject of its class on the workbench (any unit of length).
"""

from collections.abc import Callable

from jedi_toybox.builder import Builder


def _legs(b: Builder, x: float, z: float, top: float, radius: float, role: int = 0) -> None:
    """Four legs from `top` to the ground."""
    material, taper = b.paint(role), b.uniform(0.65, 1.0)
    for sign in (1.0, -1.0):
        b.limb(
            (x, top, sign * z), (x * b.uniform(0.95, 1.15), 0.0, sign * z), radius, material, taper, pair=True
        )


def _dog(b: Builder) -> None:
    leg, girth, length = b.uniform(0.16, 0.32), b.uniform(0.14, 0.21), b.uniform(0.26, 0.4)
    head, coat = b.uniform(0.15, 0.2), b.paint(0)
    body_y = leg + 0.75 * girth
    y, z = body_y + girth + 0.75 * head, length + 0.2 * head
    b.ball((0, body_y, 0), (girth, girth * b.uniform(0.85, 1.05), length + 0.06), coat)
    b.ball((0, y, z), (head * b.uniform(0.85, 1.0), head, head), coat if b.chance(0.6) else b.paint(1))
    snout = b.uniform(0.5, 1.0) * head
    b.ball((0, y - 0.3 * head, z + head * 0.8), (0.45 * head, 0.38 * head, snout), b.flat(1))
    b.ball((0, y - 0.22 * head, z + head * 0.78 + snout), 0.17 * head, b.dark())
    b.eyes(0.42 * head, y + 0.25 * head, z + 0.85 * head, 0.15 * head)
    drop = b.uniform(0.2, 0.7) if b.chance(0.7) else -0.9
    b.ball(
        (0.85 * head, y - drop * head + 0.5 * head, z - 0.1 * head),
        (0.18 * head, 0.7 * head, 0.4 * head),
        b.paint(1),
        (0.0, 0.0, b.uniform(8, 25)),
        pair=True,
    )
    _legs(b, 0.6 * girth, 0.75 * length, body_y, 0.3 * girth + 0.015, b.count(0, 1))
    b.limb(
        (0, body_y + 0.4 * girth, -length),
        (0, body_y + girth + b.uniform(0, 0.25), -length - b.uniform(0.12, 0.25)),
        0.05,
        b.paint(b.count(0, 2)),
        0.4,
    )


def _cat(b: Builder) -> None:
    height, girth, head = b.uniform(0.26, 0.38), b.uniform(0.17, 0.24), b.uniform(0.18, 0.24)
    coat = b.front(0)
    y = 2 * height + 0.5 * head
    b.ball((0, height, -0.05), (girth, height, girth * 1.1), coat, (b.uniform(-12, 0), 0, 0))
    b.ball((0, y, 0.04), (head * 1.08, head * 0.88, head * 0.9), coat if b.chance(0.6) else b.paint(1))
    b.ball((0, y - 0.32 * head, 0.04 + 0.72 * head), (0.4 * head, 0.28 * head, 0.3 * head), b.flat(1))
    b.eyes(0.42 * head, y + 0.12 * head, 0.04 + 0.8 * head, 0.17 * head)
    b.tube(
        (0.62 * head, y + 0.95 * head, 0.02),
        (0.33 * head, 0.42 * head, 0.16 * head),
        b.paint(b.count(0, 1)),
        0.02,
        (0, 0, -b.uniform(10, 25)),
        pair=True,
    )
    b.limb(
        (0.45 * girth, 0.8 * height, girth * 0.7),
        (0.45 * girth, 0, girth * 0.95),
        0.28 * girth,
        b.paint(1),
        0.9,
        True,
    )
    b.ball((0.8 * girth, 0.08, 0.25 * girth), (0.07, 0.08, 0.14), b.paint(b.count(0, 1)), pair=True)
    side = b.uniform(0.5, 1.2) * (1 if b.chance(0.5) else -1)
    b.limb(
        (0.5 * girth * side, 0.06, -girth), (side * 0.42, b.uniform(0.1, 0.5), -0.1), 0.055, b.paint(2), 0.6
    )


def _bird(b: Builder) -> None:
    girth, length, head = b.uniform(0.18, 0.26), b.uniform(0.26, 0.36), b.uniform(0.13, 0.19)
    leg, lean = b.uniform(0.12, 0.26), b.uniform(15, 45)
    y = leg + girth
    b.ball((0, y, 0), (girth, girth, length), b.front(0, 0.1), (-lean, 0, 0))
    hy, hz = y + 0.75 * length * lean / 40 + 0.6 * head + 0.08, 0.7 * length
    b.ball((0, hy, hz), head, b.paint(b.count(0, 2)))
    b.limb(
        (0, hy - 0.1 * head, hz + 0.8 * head),
        (0, hy - 0.25 * head, hz + head + b.uniform(0.08, 0.25)),
        0.4 * head,
        b.flat(2),
        0.05,
    )
    b.eyes(0.55 * head, hy + 0.3 * head, hz + 0.72 * head, 0.19 * head)
    spread = b.uniform(-5, 45) if b.chance(0.75) else 80
    b.ball(
        (girth * 1.02, y + 0.03, -0.06),
        (0.05, 0.72 * girth, 0.85 * length),
        b.paint(1),
        (-lean, 0, spread),
        pair=True,
    )
    b.box(
        (0, y - 0.6 * length * lean / 45, -length - 0.08),
        (b.uniform(0.06, 0.12), 0.02, 0.16),
        b.paint(2),
        (-lean, 0, 0),
    )
    legs = b.flat(2)
    b.limb((0.4 * girth, y - 0.6 * girth, 0), (0.4 * girth, 0, 0.02), 0.022, legs, 1.0, pair=True)
    b.box((0.4 * girth, 0.012, 0.05), (0.05, 0.012, 0.08), legs, pair=True)


def _duck(b: Builder) -> None:
    girth, length, head = b.uniform(0.22, 0.3), b.uniform(0.32, 0.42), b.uniform(0.15, 0.21)
    y, neck = 0.05 + girth * 0.85, b.uniform(0.0, 0.2)
    hy, hz = y + girth * 0.7 + neck + head * 0.8, 0.55 * length
    body = b.front(0, 0.1)
    b.ball((0, y, 0), (girth, girth * 0.85, length), body)
    b.ball((0, hy, hz), head, body if b.chance(0.5) else b.paint(1))
    b.ball(
        (0, hy - 0.25 * head, hz + 1.1 * head),
        (0.5 * head, 0.16 * head, b.uniform(0.4, 0.7) * head),
        b.flat(2),
    )
    b.eyes(0.45 * head, hy + 0.25 * head, hz + 0.8 * head, 0.15 * head)
    b.ball(
        (girth * 0.93, y + 0.05, -0.05), (0.07, 0.5 * girth, 0.6 * length), b.paint(1), (10, 0, 10), pair=True
    )
    b.limb((0, y, 0.45 * length), (0, hy, hz), head * b.uniform(0.55, 0.75), b.paint(b.count(0, 2)), 0.9)
    b.limb(
        (0, y + 0.1, -0.7 * length),
        (0, y + girth * b.uniform(0.6, 1.1), -1.2 * length),
        0.13,
        b.paint(0),
        0.1,
    )
    b.box((0.12, 0.02, 0.12), (0.08, 0.02, 0.12), b.flat(2), (0, 12, 0), pair=True)


def _rabbit(b: Builder) -> None:
    height, girth, head = b.uniform(0.2, 0.3), b.uniform(0.18, 0.26), b.uniform(0.16, 0.21)
    ear, y = b.uniform(0.16, 0.3), 2 * height + 0.6 * head
    coat = b.paint(0)
    b.ball((0, height, 0), (girth, height, girth), b.front(0))
    b.ball((0, y, 0.06), (head, head * b.uniform(0.85, 1.05), head * 0.95), coat)
    b.ball(
        (0.45 * head, y + 0.8 * head + 0.8 * ear, 0.02),
        (0.26 * head + 0.01, ear, 0.04),
        b.paint(b.count(0, 1)),
        (b.uniform(-15, 5), 0, -b.uniform(2, 28)),
        pair=True,
    )
    b.eyes(0.42 * head, y + 0.15 * head, 0.06 + 0.85 * head, 0.15 * head)
    b.ball((0, y - 0.2 * head, 0.06 + 0.95 * head), 0.13 * head, b.flat(1))
    b.ball((0, 0.14, -girth - 0.03), 0.1, b.paint(2))
    b.limb(
        (0.6 * girth, 1.4 * height, 0.6 * girth),
        (0.3 * girth, 0.9 * height, girth + 0.06),
        0.06,
        coat,
        0.8,
        True,
    )
    b.box((0.6 * girth, 0.04, 0.75 * girth), (0.07, 0.04, 0.16), b.paint(1), (0, 10, 0), pair=True)


def _bear(b: Builder) -> None:
    height, girth, head = b.uniform(0.2, 0.27), b.uniform(0.2, 0.27), b.uniform(0.19, 0.26)
    coat, leg = b.paint(0), b.uniform(0.08, 0.3)
    base = leg + height
    y = base + height + 0.7 * head
    b.ball((0, base, 0), (girth, height * 1.1, girth * 0.9), coat)
    b.ball((0, base - 0.02, 0.3 * girth), (0.7 * girth, 0.75 * height, 0.7 * girth), b.front(1, 0.4))
    b.ball((0, y, 0.02), (head * 1.05, head * 0.95, head * 0.9), coat if b.chance(0.75) else b.paint(1))
    b.ball(
        (0.8 * head, y + 0.72 * head, 0),
        (0.36 * head, 0.36 * head, 0.2 * head),
        b.paint(b.count(0, 1)),
        pair=True,
    )
    b.ball((0, y - 0.25 * head, 0.75 * head), (0.45 * head, 0.34 * head, 0.4 * head), b.flat(1))
    b.eyes(0.38 * head, y + 0.2 * head, 0.84 * head, 0.11 * head)
    b.box((0, y - 0.12 * head, 1.14 * head), (0.13 * head, 0.09 * head, 0.06 * head), b.dark())
    arms, lift = b.paint(0), b.uniform(-0.2, 0.3)
    b.limb(
        (0.75 * girth, base + 0.6 * height, 0), (1.35 * girth, base + lift, 0.1), 0.085, arms, 0.9, pair=True
    )
    b.limb(
        (0.5 * girth, base - 0.4 * height, 0.05),
        (0.65 * girth, 0.03, 0.1 + b.uniform(0, 0.22)),
        0.1,
        b.paint(b.count(0, 1)),
        0.95,
        pair=True,
    )


def _penguin(b: Builder) -> None:
    height, girth, head = b.uniform(0.3, 0.4), b.uniform(0.2, 0.28), b.uniform(0.15, 0.2)
    coat, y = b.paint(0), 2 * height + 0.35 * head
    b.ball((0, height, 0), (girth, height, girth * 0.95), coat)
    b.ball((0, height - 0.03, 0.3 * girth), (0.78 * girth, 0.82 * height, 0.78 * girth), b.front(1, 0.3))
    b.ball((0, y, 0), (head, head * 0.95, head), coat if b.chance(0.6) else b.paint(2))
    b.limb(
        (0, y - 0.1 * head, 0.8 * head),
        (0, y - 0.2 * head, head + b.uniform(0.07, 0.18)),
        0.32 * head,
        b.flat(2),
        0.1,
    )
    b.eyes(0.42 * head, y + 0.25 * head, 0.82 * head, 0.16 * head)
    b.ball(
        (girth * 1.05, height + 0.08, 0),
        (0.04, 0.7 * height, 0.4 * girth),
        b.paint(0),
        (0, 0, b.uniform(8, 45)),
        pair=True,
    )
    b.box((0.45 * girth, 0.02, 0.6 * girth), (0.08, 0.025, 0.13), b.flat(2), (0, 15, 0), pair=True)


def _pig(b: Builder) -> None:
    girth, length, leg, head = (
        b.uniform(0.22, 0.3),
        b.uniform(0.26, 0.38),
        b.uniform(0.1, 0.2),
        b.uniform(0.17, 0.22),
    )
    skin, y = b.paint(0), leg + 0.8 * girth
    hy, hz = y + 0.25 * girth, length + 0.35 * head
    b.ball((0, y, 0), (girth, girth * 0.92, length), skin)
    b.ball((0, hy, hz), (head, head * 0.95, head * 0.8), skin if b.chance(0.6) else b.paint(1))
    b.limb(
        (0, hy - 0.15 * head, hz),
        (0, hy - 0.2 * head, hz + b.uniform(1.0, 1.3) * head),
        0.42 * head,
        b.flat(1),
        0.9,
    )
    b.eyes(0.5 * head, hy + 0.35 * head, hz + 0.66 * head, 0.13 * head)
    b.ball(
        (0.62 * head, hy + 0.85 * head, hz),
        (0.3 * head, 0.36 * head, 0.1 * head),
        b.paint(1),
        (25, 0, -20),
        pair=True,
    )
    _legs(b, 0.55 * girth, 0.55 * length, y, 0.3 * girth, b.count(0, 1))
    b.ball((0, y + 0.3 * girth, -length - 0.02), (0.025, 0.08, 0.06), b.flat(1))


def _cow(b: Builder) -> None:
    girth, length, leg = b.uniform(0.18, 0.23), b.uniform(0.28, 0.36), b.uniform(0.22, 0.32)
    head, y = b.uniform(0.12, 0.16), leg + 0.8 * girth
    hy, hz = y + girth + 0.3 * head, length + 0.6 * head
    b.box((0, y, 0), (girth * 0.85, girth * 0.85, length), b.paint(0))
    b.box((0, hy, hz), (head * 0.8, head, head), b.paint(b.count(0, 1)), (b.uniform(5, 25), 0, 0))
    b.ball((0, hy - 0.55 * head, hz + head), (0.75 * head, 0.5 * head, 0.5 * head), b.flat(1))
    b.eyes(0.5 * head, hy + 0.3 * head, hz + 1.0 * head, 0.16 * head)
    b.ball(
        (0.65 * head, hy + 1.25 * head, hz - 0.2 * head),
        (0.12 * head, 0.5 * head, 0.14 * head),
        b.flat(2),
        (0, 0, -b.uniform(15, 50)),
        pair=True,
    )
    b.ball(
        (1.2 * head, hy + 0.5 * head, hz - 0.2 * head),
        (0.5 * head, 0.18 * head, 0.1 * head),
        b.paint(1),
        (0, 0, -15),
        pair=True,
    )
    _legs(b, 0.6 * girth, 0.75 * length, y, 0.26 * girth, b.count(0, 1))
    b.limb((0, y + 0.6 * girth, -length), (0, y - 0.6 * girth, -length - 0.08), 0.03, b.flat(1), 1.0)


def _mouse(b: Builder) -> None:
    girth, height, head, ear = (
        b.uniform(0.18, 0.24),
        b.uniform(0.2, 0.27),
        b.uniform(0.15, 0.19),
        b.uniform(0.12, 0.19),
    )
    coat, y = b.paint(0), 2 * height + 0.45 * head
    b.ball((0, height, -0.02), (girth, height, girth), b.front(0))
    b.ball((0, y, 0.07), (head * 0.95, head * 0.85, head * 1.1), coat)
    b.ball(
        (0.75 * head + 0.45 * ear, y + 0.55 * head + 0.5 * ear, 0), (ear, ear, 0.03), b.paint(1), pair=True
    )
    b.eyes(0.4 * head, y + 0.25 * head, 0.07 + 0.9 * head, 0.15 * head)
    b.ball((0, y - 0.15 * head, 0.07 + 1.2 * head), 0.16 * head, b.dark())
    b.limb(
        (0.4 * girth, 0.7 * height, 0.7 * girth),
        (0.3 * girth, 0.9 * height, girth + 0.1),
        0.05,
        coat,
        0.8,
        pair=True,
    )
    b.box((0.5 * girth, 0.03, 0.6 * girth), (0.06, 0.03, 0.13), b.flat(1), pair=True)
    b.limb(
        (0, 0.08, -girth), (b.uniform(-0.4, 0.4), b.uniform(0.05, 0.5), -girth - 0.25), 0.035, b.flat(1), 0.4
    )


ANIMALS: dict[str, Callable[[Builder], None]] = {
    "bear": _bear,
    "bird": _bird,
    "cat": _cat,
    "cow": _cow,
    "dog": _dog,
    "duck": _duck,
    "mouse": _mouse,
    "penguin": _penguin,
    "pig": _pig,
    "rabbit": _rabbit,
}
