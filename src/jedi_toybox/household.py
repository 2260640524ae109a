"""Things of the house. Each function puts one random subject of its class on the workbench."""

from collections.abc import Callable

from jedi_toybox.builder import Builder


def _lamp(b: Builder) -> None:
    foot, pole, shade = b.uniform(0.14, 0.22), b.uniform(0.2, 0.3), b.uniform(0.2, 0.3)
    tall, y = b.uniform(0.12, 0.19), 0.06 + 2 * pole
    b.tube((0, 0.03, 0), (foot, 0.03, foot), b.paint(1), b.uniform(0.6, 1.0))
    style = b.random()
    if style < 0.5:
        b.tube((0, pole, 0), (0.03, pole, 0.03), b.flat(2))
    else:
        size = b.uniform(0.1, 0.16)
        b.ball((0, 0.06 + size * 1.3, 0), (size, 1.4 * size, size), b.front(1))
        if style > 0.75:
            b.ball((0, 0.06 + 3.0 * size, 0), 0.6 * size, b.paint(2))
        b.tube((0, pole, 0), (0.035, pole, 0.035), b.flat(2))
    b.tube((0, y + tall * 0.6, 0), (shade, tall, shade), b.front(0, 0.0), b.uniform(0.35, 0.95))
    if b.chance(0.5):
        b.ball((0, y + 1.7 * tall, 0), 0.04, b.flat(1))
    if b.chance(0.5):
        b.tube((0, y - 0.37 * tall, 0), (shade * 1.03, 0.02, shade * 1.03), b.flat(2))


def _chair(b: Builder) -> None:
    width, seat, back = b.uniform(0.2, 0.28), b.uniform(0.2, 0.26), b.uniform(0.2, 0.32)
    wood = b.paint(0)
    b.box((0, 2 * seat, 0), (width, 0.04, width), b.paint(1))
    x, z = 0.8 * width, 0.8 * width
    spread, thick = b.uniform(1.0, 1.2), b.uniform(0.025, 0.045)
    b.limb((x, 2 * seat, z), (x * spread, 0, z * spread), thick, wood, pair=True)
    b.limb((x, 2 * seat, -z), (x * spread, 0, -z * spread), thick, wood, pair=True)
    lean = -b.uniform(0, 12)
    if b.chance(0.6):
        b.box((0, 2 * seat + back, -width), (width, back, 0.035), b.front(0, 0.3), (lean, 0, 0))
    else:
        b.ball((0, 2 * seat + back, -width), (width, back, 0.06), b.front(0, 0.3), (lean, 0, 0))
    if b.chance(0.4):
        b.box((width, 2 * seat + 0.18, -0.1 * width), (0.035, 0.025, 0.8 * width), wood, pair=True)
    if b.chance(0.5):
        b.ball((0, 2 * seat + 0.05, 0), (0.9 * width, 0.06, 0.9 * width), b.paint(2))


def _table(b: Builder) -> None:
    width, depth, height = b.uniform(0.36, 0.5), b.uniform(0.26, 0.4), b.uniform(0.2, 0.32)
    if b.chance(0.55):
        b.box((0, 2 * height, 0), (width, 0.035, depth), b.paint(0))
        legs, thick, x, z = b.paint(1), b.uniform(0.03, 0.05), 0.85 * width, 0.82 * depth
        b.limb((x, 2 * height, z), (x, 0, z), thick, legs, b.uniform(0.5, 1), pair=True)
        b.limb((x, 2 * height, -z), (x, 0, -z), thick, legs, b.uniform(0.5, 1), pair=True)
    else:
        b.tube((0, 2 * height, 0), (width, 0.035, width), b.paint(0))
        b.tube((0, height, 0), (b.uniform(0.05, 0.09), height, 0.07), b.paint(1), b.uniform(0.5, 1))
        b.tube((0, 0.03, 0), (0.55 * width, 0.03, 0.55 * width), b.paint(1), 0.7)
    if b.chance(0.4):
        b.box((0, 2 * height + 0.005, 0), (0.4 * width, 0.035, depth * 1.02), b.paint(2))
    if b.chance(0.5):
        b.tube((0.1, 2 * height + 0.12, 0), (0.06, 0.08, 0.06), b.paint(2), b.uniform(0.6, 1.6))
        b.ball((0.1, 2 * height + 0.24, 0), b.uniform(0.06, 0.11), b.paint(1))
    else:
        for x in (-0.35, 0.2)[: b.count(0, 2)]:
            b.ball((x * width, 2 * height + 0.08, 0.1), b.uniform(0.05, 0.09), b.paint(2))


def _teapot(b: Builder) -> None:
    width, height = b.uniform(0.22, 0.3), b.uniform(0.18, 0.27)
    y = height + 0.03
    b.ball((0, y, 0), (width, height, width), b.front(0, 0.3))
    b.tube((0, 0.03, 0), (0.65 * width, 0.03, 0.65 * width), b.paint(1))
    b.ball((0, y + 0.85 * height, 0), (0.6 * width, 0.35 * height, 0.6 * width), b.paint(b.count(0, 1)))
    b.ball((0, y + 1.3 * height, 0), b.uniform(0.035, 0.06), b.flat(2))
    b.limb(
        (0.7 * width, y - 0.2 * height, 0),
        (width + b.uniform(0.14, 0.22), y + 0.75 * height, 0),
        0.085,
        b.paint(1),
        0.45,
    )
    grip, out = b.paint(2), b.uniform(0.14, 0.2)
    high, low, thick = y + 0.5 * height, y - 0.45 * height, b.uniform(0.028, 0.045)
    b.limb((-0.75 * width, high, 0), (-width - out, high, 0), thick, grip)
    b.limb((-width - out, high, 0), (-width - out, y, 0), thick, grip)
    b.limb((-0.75 * width, low, 0), (-width - out, y, 0), thick, grip)
    b.ball((-width - out, high, 0), thick * 1.15, grip)
    b.ball((-width - out, y, 0), thick * 1.15, grip)


def _cup(b: Builder) -> None:
    radius, height = b.uniform(0.2, 0.32), b.uniform(0.2, 0.36)
    taper = b.uniform(0.95, 1.5)
    b.tube((0, height + 0.02, 0), (radius, height, radius), b.front(0, 0.35), taper)
    b.tube((0, 2 * height + 0.012, 0), (0.87 * radius, 0.015, 0.87 * radius), b.flat(2))
    if b.chance(0.35):
        b.tube((0, 0.02, 0), (1.5 * radius, 0.025, 1.5 * radius), b.paint(1), 1.3)
    grip, thick, out = b.paint(1), b.uniform(0.03, 0.045), radius + b.uniform(0.14, 0.2)
    high, low = 1.55 * height, 0.75 * height
    b.box((0.5 * (out + 0.7 * radius), high, 0), (0.5 * (out - 0.7 * radius), thick, thick), grip)
    b.box((0.5 * (out + 0.7 * radius), low, 0), (0.5 * (out - 0.7 * radius), thick, thick), grip)
    b.box((out, 0.5 * (high + low), 0), (thick, 0.5 * (high - low) + thick, thick), grip)
    if b.chance(0.4):
        b.tube((0, height * b.uniform(0.4, 1.6), 0), (radius * 1.02, 0.04, radius * 1.02), b.paint(2))


def _vase(b: Builder) -> None:
    belly, tall, neck = b.uniform(0.17, 0.28), b.uniform(0.2, 0.3), b.uniform(0.06, 0.12)
    y = tall + 0.04
    b.tube((0, 0.03, 0), (0.6 * belly, 0.03, 0.6 * belly), b.paint(1), 0.85)
    b.ball((0, y, 0), (belly, tall, belly), b.front(0, 0.25))
    length = b.uniform(0.05, 0.13)
    b.tube((0, y + 0.85 * tall + length, 0), (neck, length + 0.05, neck), b.paint(0), b.uniform(0.7, 1.0))
    rim = y + 0.85 * tall + 2 * length + 0.03
    b.tube((0, rim, 0), (neck * 1.6, 0.03, neck * 1.6), b.paint(1), b.uniform(1.2, 2))
    if b.chance(0.4):
        b.tube((0, y, 0), (belly * 1.02, 0.05, belly * 1.02), b.paint(2))
    if b.chance(0.4):
        b.ball(
            (belly * 1.05, y + 0.4 * tall, 0),
            (0.05, 0.12, 0.035),
            b.paint(2),
            (0, 0, b.uniform(-10, 30)),
            pair=True,
        )
    elif b.chance(0.5):
        for x in (-0.09, 0.0, 0.1):
            b.ball((x, rim + b.uniform(0.1, 0.22), b.uniform(-0.05, 0.05)), (0.07, 0.09, 0.07), b.paint(2))
        b.box((0, rim + 0.06, 0), (0.07, 0.06, 0.015), b.flat(1))


def _clock(b: Builder) -> None:
    radius, thick = b.uniform(0.3, 0.38), b.uniform(0.07, 0.13)
    y = radius + 0.08
    if b.chance(0.65):
        b.tube((0, y, 0), (radius, thick, radius), b.paint(0), 1.0, (90, 0, 0))
    else:
        b.box((0, y, 0), (radius, radius, thick), b.paint(0))
    b.tube((0, y, thick), (0.85 * radius, 0.015, 0.85 * radius), b.paint(1), 1.0, (90, 0, 0))
    hand, hour, minute = b.dark(), b.uniform(0, 360), b.uniform(0, 360)
    for angle, length, wide in ((hour, 0.45, 0.028), (minute, 0.7, 0.02)):
        matrix_up = b.arrow(angle, 0.5 * length * radius)
        b.box(
            (matrix_up[0], y + matrix_up[1], thick + 0.025),
            (wide, 0.5 * length * radius, 0.012),
            hand,
            (0, 0, angle),
        )
    b.ball((0, y, thick + 0.03), 0.035, b.flat(2))
    for x, up in ((0.0, 0.74), (0.0, -0.74), (0.74, 0.0), (-0.74, 0.0))[: 2 * b.count(0, 2)]:
        b.ball((x * radius, y + up * radius, thick + 0.015), (0.035, 0.035, 0.015), hand)
    b.limb((0.5 * radius, 0.2, 0), (0.7 * radius, 0.0, 0), 0.045, b.paint(2), pair=True)
    if b.chance(0.6):
        b.ball((0.55 * radius, y + radius * 0.95, 0), (0.14, 0.1, 0.1), b.paint(2), (0, 0, -30), pair=True)
    else:
        b.tube((0, y + radius + 0.03, 0), (0.05, 0.05, 0.05), b.flat(2))


def _bottle(b: Builder) -> None:
    radius, body = b.uniform(0.12, 0.21), b.uniform(0.18, 0.3)
    neck, shoulder = radius * b.uniform(0.3, 0.55), b.uniform(0.05, 0.14)
    b.tube((0, body, 0), (radius, body, radius), b.paint(0), b.uniform(0.9, 1.0))
    label = b.uniform(0.3, 0.6)
    b.tube((0, body * b.uniform(0.8, 1.1), 0), (radius * 1.03, body * label, radius * 1.03), b.front(1, 0.4))
    b.tube((0, 2 * body + shoulder, 0), (radius * 0.95, shoulder, radius * 0.95), b.paint(0), neck / radius)
    y = 2 * body + 2 * shoulder
    length = b.uniform(0.05, 0.14)
    b.tube((0, y + length, 0), (neck, length, neck), b.paint(b.count(0, 1)))
    b.tube((0, y + 2 * length, 0), (neck * b.uniform(1.1, 1.6), b.uniform(0.02, 0.06), neck * 1.3), b.flat(2))
    if b.chance(0.5):
        b.ball((0, body, radius * 1.0), (0.6 * radius, b.uniform(0.05, 0.1), 0.05), b.paint(2))


def _backpack(b: Builder) -> None:
    width, height, depth = b.uniform(0.22, 0.3), b.uniform(0.28, 0.36), b.uniform(0.14, 0.19)
    cloth, pocket = b.paint(0), b.front(1, 0.5)
    b.tube((0, height, 0), (width, height, depth), cloth, b.uniform(0.85, 1.0))
    b.ball((0, 2 * height, 0), (0.95 * width, b.uniform(0.1, 0.18), 0.95 * depth), b.paint(b.count(0, 1)))
    b.ball((0, 0.62 * height, depth), (0.75 * width, 0.5 * height, 0.09), pocket)
    b.box((0, 1.05 * height, depth + 0.03), (0.55 * width, 0.035, 0.05), b.flat(2))
    straps = b.paint(2)
    b.limb(
        (0.55 * width, 2.1 * height, -0.2 * depth),
        (0.75 * width, 1.3 * height, -depth - 0.12),
        0.045,
        straps,
        pair=True,
    )
    b.limb((0.75 * width, 1.3 * height, -depth - 0.12), (0.6 * width, 0.1, -depth), 0.045, straps, pair=True)
    b.box((0, 2 * height + 0.19, 0), (0.09, 0.02, 0.03), straps)
    b.box((0.08, 2 * height + 0.14, 0), (0.02, 0.07, 0.03), straps, pair=True)
    b.ball((width, 0.6 * height, 0), (0.07, 0.4 * height, 0.75 * depth), b.paint(1), pair=True)
    if b.chance(0.6):
        b.ball((0, 1.3 * height, depth * 0.95), (0.05, 0.05, 0.03), b.flat(2))


def _guitar(b: Builder) -> None:
    low, high, thick = b.uniform(0.19, 0.25), b.uniform(0.13, 0.19), b.uniform(0.05, 0.08)
    body = b.paint(0)
    waist = low * 1.6
    b.ball((0, low, 0), (low, low * 0.95, thick), body)
    b.ball((0, waist + 0.5 * high, 0), (high, high * 0.9, thick), body)
    if b.chance(0.4):
        b.ball((low * 0.6, low * 0.8, thick * 0.5), (0.09, 0.12, 0.035), b.flat(1), (0, 0, b.uniform(-40, 0)))
    neck, length = b.paint(1), b.uniform(0.19, 0.26)
    y = waist + high
    b.box((0, y + length, thick), (0.035, length + 0.08, 0.02), neck)
    b.box((0, y + 2 * length + 0.1, thick - 0.01), (0.06, 0.07, 0.02), b.paint(2), (-8, 0, 0))
    b.box((0, 0.75 * low, thick), (0.1, 0.02, 0.02), b.flat(2))
    b.box((0, y + 0.3 * length, thick + 0.02), (0.012, length + 0.25, 0.006), b.flat(1))
    b.tube((0, 1.45 * low, thick * 0.93), (0.07, 0.02, 0.07), b.dark(), 1.0, (90, 0, 0))
    for lift in (0.07, 0.13):
        b.ball((0.08, y + 2 * length + lift, thick), 0.022, b.flat(1), pair=True)


def _hat(b: Builder) -> None:
    radius, height, brim = b.uniform(0.2, 0.28), b.uniform(0.12, 0.32), b.uniform(1.3, 2.0)
    felt = b.paint(0)
    b.tube((0, 0.02, 0), (radius * brim, 0.02, radius * brim), felt if b.chance(0.6) else b.paint(2), 0.95)
    taper = b.uniform(0.1, 1.0)
    if b.chance(0.65):
        b.tube((0, height + 0.02, 0), (radius, height, radius), b.front(0, 0.1), taper)
    else:
        taper = 0.95
        b.ball((0, 0.02, 0), (radius, 1.7 * height, radius), b.front(0))
    b.tube((0, 0.08, 0), (radius * 1.03, 0.045, radius * 1.03), b.paint(1), 1 - (1 - taper) * 0.3)
    if b.chance(0.5):
        b.ball((0, 2 * height, 0), b.uniform(0.04, 0.09), b.flat(2))
    elif b.chance(0.6):
        b.ball((radius, 0.2, 0.08), (0.025, 0.2, 0.06), b.paint(2), (0, 0, b.uniform(-30, 0)))
    if b.chance(0.3):
        b.ball((0, 0.09, radius * 1.02), (0.06, 0.05, 0.03), b.flat(2))


def _shoe(b: Builder) -> None:
    # Stands along x, its toe to the right.
    length, width, sole = b.uniform(0.4, 0.48), b.uniform(0.14, 0.19), b.uniform(0.03, 0.07)
    shaft = b.uniform(0.12, 0.36)
    b.box((0, sole, 0), (length, sole, width), b.paint(1))
    b.ball(
        (0.5 * length, 2 * sole + 0.04, 0),
        (0.55 * length, b.uniform(0.11, 0.17), width),
        b.paint(b.count(0, 2)),
    )
    leather = b.paint(0)
    b.ball((-0.35 * length, 2 * sole + 0.06, 0), (0.65 * length, 0.2, width * 0.95), leather)
    b.tube(
        (-0.5 * length, 2 * sole + shaft, 0),
        (0.46 * length, shaft, width * 0.9),
        leather,
        b.uniform(0.8, 1.0),
    )
    top = 2 * sole + 2 * shaft
    b.tube((-0.5 * length, top, 0), (0.44 * length, 0.035, width * 0.9), b.paint(2))
    b.tube((-0.5 * length, top + 0.03, 0), (0.33 * length, 0.015, width * 0.65), b.dark())
    lace = b.flat(2)
    for x, y in ((0.1, 0.2), (0.25, 0.16)):
        b.box((x * length, 2 * sole + y, 0), (0.02, 0.02, width * 0.75), lace, (0, 0, -25))
    if b.chance(0.5):
        b.box((-0.75 * length, sole * 0.7, 0), (0.25 * length, sole * 1.4, width * 0.95), b.flat(1))
    for side in (1.0, -1.0):
        b.ball(
            (-0.2 * length, 2 * sole + 0.1, side * width * 0.95), (0.13, 0.045, 0.03), b.flat(2), (0, 0, 25)
        )


def _drum(b: Builder) -> None:
    radius, height = b.uniform(0.28, 0.42), b.uniform(0.15, 0.28)
    b.tube((0, height, 0), (radius, height, radius), b.front(0, 0.2))
    for y in (0.04, 2 * height):
        b.tube((0, y, 0), (radius * 1.06, 0.04, radius * 1.06), b.paint(1) if y < 0.1 else b.paint(2))
    b.ball((0, 2 * height + 0.03, 0), (0.92 * radius, 0.03, 0.92 * radius), b.flat(2))
    stick = b.flat(1)
    y = 2 * height + 0.09
    b.limb((0.1, y, -0.2), (0.4, y + 0.12, 0.3), 0.025, stick, 0.8, pair=True)
    b.ball((0.1, y, -0.2), 0.05, b.paint(1), pair=True)


def _television(b: Builder) -> None:
    width, height, depth = b.uniform(0.34, 0.46), b.uniform(0.24, 0.34), b.uniform(0.08, 0.2)
    leg = b.uniform(0.04, 0.18)
    y = leg + height
    b.box((0, y, 0), (width, height, depth), b.paint(0))
    shift = b.uniform(0.0, 0.14)
    screen = b.dark() if b.chance(0.4) else b.front(1, 0.5)
    b.box((-shift, y, depth), (width - shift - 0.05, height - 0.05, 0.012), screen)
    for lift in (0.3, -0.1)[: b.count(1, 2)]:
        b.ball((width - 0.07, y + lift * height, depth + 0.01), (0.04, 0.04, 0.025), b.flat(2))
    b.limb((0.6 * width, leg, 0), (0.8 * width, 0, 0.03), 0.035, b.paint(2), pair=True)
    if b.chance(0.6):
        b.limb(
            (0.03, y + height, 0),
            (b.uniform(0.12, 0.3), y + height + b.uniform(0.15, 0.3), 0),
            0.018,
            b.flat(2),
            pair=True,
        )
        b.ball((0, y + height, 0), (0.1, 0.05, 0.06), b.paint(2))


def _camera(b: Builder) -> None:
    width, height, depth = b.uniform(0.32, 0.42), b.uniform(0.2, 0.28), b.uniform(0.1, 0.15)
    lens = height * b.uniform(0.6, 0.85)
    b.box((0, height, 0), (width, height, depth), b.paint(0))
    b.box((0, height * b.uniform(0.8, 1.2), 0), (width + 0.008, 0.5 * height, depth + 0.008), b.paint(1))
    length = b.uniform(0.08, 0.18)
    x = b.uniform(-0.08, 0.08)
    b.tube(
        (x, height, depth + length),
        (lens, length, lens),
        b.paint(b.count(0, 2)),
        b.uniform(0.8, 1.0),
        (90, 0, 0),
    )
    b.tube((x, height, depth + 2 * length), (0.7 * lens, 0.012, 0.7 * lens), b.dark(), 1.0, (90, 0, 0))
    b.ball((x, height, depth + 2 * length), (0.4 * lens, 0.4 * lens, 0.05), b.flat(2))
    b.box((x, 2 * height + 0.04, 0), (0.12, 0.06, depth * 0.8), b.paint(b.count(0, 2)))
    b.tube((-0.7 * width, 2 * height + 0.03, 0), (0.06, 0.035, 0.06), b.flat(2))
    b.box((0.72 * width, 1.65 * height, depth), (0.06, 0.045, 0.015), b.flat(2))


def _umbrella(b: Builder) -> None:
    width, height, pole = b.uniform(0.38, 0.5), b.uniform(0.12, 0.22), b.uniform(0.3, 0.42)
    stick = b.flat(1)
    b.limb((0, 0.06, 0), (0, 2 * pole + height, 0), 0.022, stick)
    top = 2 * pole
    b.tube((0, top + height, 0), (width, height, width), b.paint(0), b.uniform(0.02, 0.15))
    b.tube((0, top, 0), (width * 1.02, 0.025, width * 1.02), b.paint(1), 0.95)
    b.ball((0, top + 2 * height, 0), (0.03, 0.07, 0.03), b.flat(2))
    b.ball((0.05, 0.04, 0), (0.08, 0.04, 0.035), b.flat(2))
    b.ball((0.12, 0.08, 0), (0.03, 0.06, 0.03), b.flat(2))
    if b.chance(0.5):
        b.ball((0, top + 0.35 * height, 0), (width * 0.92, height * 0.9, width * 0.92), b.paint(2))


def _bell(b: Builder) -> None:
    radius, height = b.uniform(0.2, 0.28), b.uniform(0.22, 0.3)
    b.ball((0, 0.06, 0), 0.08, b.flat(2))
    metal = b.paint(0)
    b.tube((0, height + 0.06, 0), (radius, height, radius), b.front(0, 0.0), b.uniform(0.5, 0.75))
    b.tube((0, 0.09, 0), (radius * 1.35, 0.05, radius * 1.35), b.paint(1), b.uniform(0.65, 0.8))
    b.ball((0, 2 * height + 0.05, 0), (radius * 0.72, 0.1, radius * 0.72), metal)
    if b.chance(0.5):
        b.tube((0, 2 * height + 0.25, 0), (0.05, b.uniform(0.1, 0.2), 0.05), b.paint(2), b.uniform(0.6, 1.6))
    else:
        b.ball((0, 2 * height + 0.2, 0), b.uniform(0.06, 0.1), b.paint(2))
    b.tube((0, height * b.uniform(0.6, 1.3), 0), (radius * 0.93, 0.03, radius * 0.93), b.paint(2))


HOUSEHOLD: dict[str, Callable[[Builder], None]] = {
    "backpack": _backpack,
    "bell": _bell,
    "bottle": _bottle,
    "camera": _camera,
    "chair": _chair,
    "clock": _clock,
    "cup": _cup,
    "drum": _drum,
    "guitar": _guitar,
    "hat": _hat,
    "lamp": _lamp,
    "shoe": _shoe,
    "table": _table,
    "teapot": _teapot,
    "television": _television,
    "umbrella": _umbrella,
    "vase": _vase,
}
