"""Vehicles, driving towards +z. Each function puts one random subject of its class on the workbench."""

from collections.abc import Callable

from jedi_toybox.builder import Builder


def _car(b: Builder) -> None:
    width, length, body = b.uniform(0.2, 0.27), b.uniform(0.36, 0.46), b.uniform(0.08, 0.13)
    wheel, cabin = b.uniform(0.09, 0.13), b.uniform(0.09, 0.14)
    y = wheel + body * 0.7
    roof_y, shift, deep = y + body + cabin, b.uniform(-0.12, 0.02), b.uniform(0.45, 0.65) * length
    b.box((0, y, 0), (width, body, length), b.front(0, 0.25))
    glass = b.dark()
    if b.chance(0.65):
        b.box((0, roof_y, shift), (0.85 * width, cabin, deep), b.paint(b.count(0, 1)))
        b.box((0, roof_y, shift), (0.87 * width, 0.55 * cabin, 0.85 * deep), glass)
        b.box((0, roof_y, shift), (0.72 * width, 0.6 * cabin, deep + 0.012), glass)
    else:
        b.ball((0, y + body * 0.8, shift), (0.88 * width, 2 * cabin, deep * 1.05), b.paint(1))
        b.ball((0, y + body * 0.85, shift + 0.05), (0.75 * width, 1.75 * cabin, deep * 1.1), glass)
    tyre = b.dark()
    for z in (0.6, -0.6):
        b.wheels(width, z * length, wheel, 0.055, tyre)
    b.ball((0.65 * width, y + 0.15 * body, length), (0.055, 0.055, 0.03), b.flat(2), pair=True)
    b.box((0, y - 0.6 * body, length), (width * 0.95, 0.3 * body, 0.035), b.paint(1))
    b.face(b.uniform(-45, 45))


def _truck(b: Builder) -> None:
    width, wheel, length = b.uniform(0.19, 0.25), b.uniform(0.08, 0.11), b.uniform(0.42, 0.5)
    floor, cab = 1.5 * wheel, b.uniform(0.17, 0.24)
    tyre, load = b.dark(), b.uniform(0.12, 0.26)
    b.box((0, floor, 0), (0.8 * width, 0.035, length), b.flat(2))
    b.box((0, floor + cab, length - 0.15), (width, cab, 0.15), b.paint(0))
    b.box((0, floor + 1.35 * cab, length - 0.13), (0.8 * width, 0.35 * cab, 0.145), b.dark())
    if b.chance(0.7):
        b.box((0, floor + load + 0.02, -0.18), (width * 1.02, load, length - 0.2), b.front(1, 0.3))
    else:
        b.tube((0, floor + width, -0.18), (width, length - 0.2, width), b.front(1, 0.0), 1.0, (90, 0, 0))
    for z in (length - 0.16, -0.6 * length):
        b.wheels(width, z, wheel, 0.05, tyre)
    b.ball((0.65 * width, floor + 0.3 * cab, length), 0.045, b.flat(2), pair=True)
    b.face(b.uniform(-45, 45))


def _bus(b: Builder) -> None:
    width, height, length = b.uniform(0.18, 0.24), b.uniform(0.19, 0.28), b.uniform(0.42, 0.5)
    wheel = b.uniform(0.07, 0.1)
    y = wheel * 0.8 + height
    b.box((0, y, 0), (width, height, length), b.front(0, 0.15))
    glass = b.dark()
    b.box((0, y + 0.38 * height, 0), (width + 0.008, 0.32 * height, 0.85 * length), glass)
    b.box((0, y + 0.3 * height, 0.02), (0.82 * width, 0.42 * height, length), glass)
    b.box((0, y + height, 0), (0.9 * width, 0.03, 0.95 * length), b.paint(1))
    b.box((0, y - 0.3 * height, 0), (width + 0.01, b.uniform(0.05, 0.2) * height, length + 0.01), b.paint(2))
    for z in (0.6, -0.6):
        b.wheels(width - 0.02, z * length, wheel, 0.05, glass)
    b.ball((0.7 * width, y - 0.65 * height, length), 0.04, b.flat(1), pair=True)
    b.face(b.uniform(-45, 45))


def _train(b: Builder) -> None:
    radius, length, wheel = b.uniform(0.14, 0.19), b.uniform(0.4, 0.48), b.uniform(0.07, 0.1)
    floor = 1.6 * wheel
    y = floor + radius
    b.box((0, floor, 0), (radius * 1.1, 0.04, length), b.paint(1))
    b.tube((0, y + 0.03, 0.12), (radius, length - 0.14, radius), b.paint(0), 1.0, (90, 0, 0))
    cab = b.uniform(0.22, 0.3)
    b.box((0, floor + cab, -length + 0.15), (radius * 1.15, cab, 0.15), b.paint(1))
    b.box((0, floor + 1.45 * cab, -length + 0.15), (radius * 1.17, 0.28 * cab, 0.09), b.dark())
    b.box((0, floor + 2 * cab, -length + 0.15), (radius * 1.35, 0.025, 0.19), b.paint(2))
    b.tube(
        (0, y + radius + 0.09, 0.7 * length),
        (0.05, b.uniform(0.08, 0.14), 0.05),
        b.paint(2),
        b.uniform(1.0, 1.8),
    )
    b.tube((0, y + 0.03, length - 0.01), (0.6 * radius, 0.02, 0.6 * radius), b.front(2, 0.4), 1.0, (90, 0, 0))
    if b.chance(0.7):
        b.ball((0, y + radius, 0.25 * length), 0.08, b.flat(2))
    tyres = b.paint(2)
    for z in (0.65, 0.1, -0.6):
        b.ball((radius * 1.05, wheel, z * length), (0.04, wheel, wheel), tyres, pair=True)
    b.face(b.uniform(-45, 45))


def _boat(b: Builder) -> None:
    width, length, hull = b.uniform(0.18, 0.25), b.uniform(0.38, 0.48), b.uniform(0.09, 0.14)
    b.tube((0, hull, 0), (width, hull, length), b.front(0, 0.1), b.uniform(1.3, 1.9))
    b.tube((0, 2 * hull, 0), (1.03 * width, 0.02, 1.03 * length), b.paint(2))
    if b.chance(0.55):
        mast = b.uniform(0.32, 0.42)
        b.tube((0, 2 * hull + mast, 0.05), (0.02, mast, 0.02), b.flat(2))
        # Sails: cones pressed flat, which are triangles.
        b.tube((0, 2 * hull + mast * 1.05, -0.17), (0.012, mast * 0.85, 0.2), b.front(1, 0.0), 0.02)
        b.tube((0, 2 * hull + mast * 0.9, 0.22), (0.012, mast * 0.65, 0.13), b.paint(2), 0.02)
        if b.chance(0.5):
            b.box((0, 2 * hull + 2 * mast, -0.02), (0.01, 0.04, 0.08), b.flat(1))
    else:
        cabin = b.uniform(0.08, 0.14)
        b.box((0, 2 * hull + cabin, -0.05), (0.65 * width, cabin, 0.5 * length), b.paint(1))
        b.box((0, 2 * hull + 2.4 * cabin, -0.1), (0.5 * width, 0.5 * cabin, 0.28 * length), b.paint(2))
        b.box((0, 2 * hull + 1.2 * cabin, -0.05), (0.66 * width, 0.3 * cabin, 0.42 * length), b.dark())
        for z in (0.02, -0.2)[: b.count(1, 2)]:
            b.tube(
                (0, 2 * hull + 3.4 * cabin, z),
                (0.06, b.uniform(0.09, 0.15), 0.06),
                b.paint(1),
                b.uniform(0.7, 1),
            )
    if b.chance(0.4):
        b.ball((width * 0.95, 1.6 * hull, 0.1), (0.03, 0.06, 0.06), b.flat(1), pair=True)
    b.face(90 * (1 if b.chance(0.5) else -1) + b.uniform(-25, 25))


def _airplane(b: Builder) -> None:
    girth, length, span = b.uniform(0.09, 0.15), b.uniform(0.4, 0.48), b.uniform(0.4, 0.52)
    y, chord = girth + b.uniform(0.08, 0.14), b.uniform(0.08, 0.14)
    high = b.uniform(-0.5, 0.8) * girth
    b.ball((0, y, 0), (girth, girth, length), b.paint(0))
    wing, sweep = b.paint(1), b.uniform(0, 25)
    b.box(
        (0.5 * span, y + high, 0.05),
        (0.52 * span, 0.018, chord),
        wing,
        (0, sweep, b.uniform(-4, 8)),
        pair=True,
    )
    b.box((0, y + 0.3 * girth, -length + 0.08), (b.uniform(0.16, 0.24), 0.015, 0.07), b.paint(1))
    b.tube(
        (0, y + girth + 0.08, -length + 0.09),
        (0.015, b.uniform(0.1, 0.16), 0.11),
        b.front(2, 0.0),
        b.uniform(0.3, 0.7),
    )
    b.ball((0, y + 0.55 * girth, 0.5 * length), (0.6 * girth, 0.5 * girth, 0.14), b.dark())
    if b.chance(0.5):
        b.tube((0.5 * span, y + high - 0.05, 0.1), (0.05, 0.11, 0.05), b.paint(2), 0.8, (90, 0, 0), pair=True)
    else:
        b.box((0, y, length), (0.02, b.uniform(0.14, 0.2), 0.01), b.flat(2), (0, 0, b.uniform(0, 180)))
        b.ball((0, y, length), 0.04, b.flat(1))
    b.wheels(0.12, 0.1, 0.05, 0.025, b.dark())
    b.face(b.uniform(-30, 30))


def _rocket(b: Builder) -> None:
    radius, body, nose = b.uniform(0.12, 0.19), b.uniform(0.22, 0.32), b.uniform(0.1, 0.2)
    base = b.uniform(0.08, 0.16)
    taper, y = b.uniform(0.75, 1.0), base + body
    b.tube((0, y, 0), (radius, body, radius), b.front(0, 0.1), taper)
    top = y + body
    b.tube((0, top + nose, 0), (radius * taper, nose, radius * taper), b.paint(1), 0.04)
    if b.chance(0.5):
        b.tube((0, y - b.uniform(-0.1, 0.6) * body, 0), (radius * 1.05, 0.04, radius * 1.05), b.paint(2))
    b.tube((0, base * 0.75, 0), (0.7 * radius, base * 0.5, 0.7 * radius), b.flat(2), 0.6)
    fin, tall = b.paint(1), b.uniform(0.12, 0.2)
    b.box((radius + 0.06, base + 0.02, 0), (0.1, tall, 0.02), fin, (0, 0, b.uniform(15, 35)), pair=True)
    for sign in (1.0, -1.0):
        b.box((0, base + 0.02, sign * (radius + 0.05)), (0.02, tall, 0.08), fin, (-sign * 22.0, 0, 0))
    port = b.uniform(0.05, 0.08)
    b.ball((0, y + 0.45 * body, radius * 0.88), (port * 1.25, port * 1.25, 0.04), b.flat(2))
    b.ball((0, y + 0.45 * body, radius * 0.92), (port * 0.85, port * 0.85, 0.045), b.dark())


def _tractor(b: Builder) -> None:
    big, small, width = b.uniform(0.2, 0.26), b.uniform(0.1, 0.14), b.uniform(0.13, 0.18)
    length, y = b.uniform(0.34, 0.42), b.uniform(0.24, 0.3)
    b.box((0, y, 0.12), (0.75 * width, b.uniform(0.09, 0.13), length * 0.75), b.front(0, 0.3))
    cab = b.uniform(0.14, 0.19)
    b.box((0, y + cab + 0.04, -0.22), (width * 0.9, cab, 0.15), b.paint(b.count(0, 1)))
    b.box((0, y + cab + 0.09, -0.22), (width * 0.78, 0.6 * cab, 0.16), b.dark())
    b.box((0, y + 2 * cab + 0.06, -0.22), (width * 1.1, 0.025, 0.2), b.paint(2))
    tyre = b.dark()
    b.wheels(width + 0.07, -0.2, big, 0.065, tyre)
    b.wheels(width + 0.03, length * 0.75, small, 0.05, tyre)
    hub = b.flat(2)
    b.ball((width + 0.13, big, -0.2), (0.02, 0.5 * big, 0.5 * big), hub, pair=True)
    b.ball((width + 0.08, small, length * 0.75), (0.02, 0.5 * small, 0.5 * small), hub, pair=True)
    b.tube((0.05, y + 0.26, 0.25), (0.025, 0.15, 0.025), b.flat(1))


def _submarine(b: Builder) -> None:
    # Lies along x: its side is what one knows it by.
    girth, length = b.uniform(0.16, 0.24), b.uniform(0.4, 0.48)
    y = girth + 0.02
    b.ball((0, y, 0), (length, girth, girth), b.paint(0))
    b.tube((0.03, y + girth + 0.04, 0), (0.12, 0.1, 0.08), b.paint(1), b.uniform(0.7, 1.0))
    b.tube((0.06, y + girth + 0.2, 0), (0.02, 0.11, 0.02), b.flat(2))
    b.box((0.09, y + girth + 0.3, 0), (0.05, 0.02, 0.02), b.flat(2))
    for x in (-0.45, 0.0, 0.45)[: b.count(2, 3)]:
        b.ball((x * length, y + 0.1, girth * (0.86 - 0.35 * abs(x))), (0.055, 0.055, 0.035), b.dark())
    b.box((-length, y, 0), (0.02, b.uniform(0.12, 0.2), 0.05), b.paint(2), (b.uniform(0, 90), 0, 0))
    b.box((-length + 0.1, y, 0), (0.07, 0.015, girth * 1.1), b.paint(1))
    b.ball((length * 0.95, y, 0), (0.06, 0.5 * girth, 0.5 * girth), b.paint(2))


VEHICLES: dict[str, Callable[[Builder], None]] = {
    "airplane": _airplane,
    "boat": _boat,
    "bus": _bus,
    "car": _car,
    "rocket": _rocket,
    "submarine": _submarine,
    "tractor": _tractor,
    "train": _train,
    "truck": _truck,
}
