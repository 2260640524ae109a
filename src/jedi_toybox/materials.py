"""Palettes and materials: what surfaces look like, drawn without knowing the subject's noun."""

from collections.abc import Callable, Sequence
from colorsys import hsv_to_rgb

from jedi_toybox.parts import Material, Pattern, Vec3

Draw = Callable[[], float]
Palette = tuple[Vec3, ...]

# Cumulated below; noise patterns are what real surfaces look like most.
_PATTERNED: tuple[tuple[Pattern, float], ...] = (
    ("stripes", 0.18),
    ("checks", 0.11),
    ("dots", 0.14),
    ("gradient", 0.13),
    ("fractal", 0.11),
    ("cellular", 0.09),
    ("marble", 0.09),
    ("wood", 0.07),
    ("speckle", 0.08),
)
_NOISY: tuple[tuple[Pattern, float], ...] = (
    ("stripes", 0.11),
    ("checks", 0.07),
    ("dots", 0.09),
    ("gradient", 0.09),
    ("fractal", 0.17),
    ("cellular", 0.15),
    ("marble", 0.13),
    ("wood", 0.09),
    ("speckle", 0.10),
)
_SQUARE_TURNS: tuple[Vec3, ...] = ((0.0, 0.0, 0.0), (0.0, 0.0, 90.0), (90.0, 0.0, 0.0), (0.0, 0.0, 45.0))
BLACK: Vec3 = (0.06, 0.06, 0.07)


def _draw_hue(draw: Draw) -> float:
    """Return a hue in 0..1; from red to yellow more often, as real things are."""
    return (0.95 + 0.22 * draw()) % 1.0 if draw() < 0.35 else draw()


def draw_color(draw: Draw) -> Vec3:
    """Return a colour: vivid, pale, dark, muted or grey."""
    kind, hue = draw(), _draw_hue(draw)
    if kind < 0.40:
        return hsv_to_rgb(hue, 0.7 + 0.3 * draw(), 0.65 + 0.35 * draw())
    if kind < 0.56:
        return hsv_to_rgb(hue, 0.15 + 0.3 * draw(), 0.8 + 0.2 * draw())
    if kind < 0.70:
        return hsv_to_rgb(hue, 0.5 + 0.4 * draw(), 0.2 + 0.3 * draw())
    if kind < 0.86:
        return hsv_to_rgb(hue, 0.25 + 0.4 * draw(), 0.35 + 0.4 * draw())
    level = draw()
    return hsv_to_rgb(hue, 0.08 * draw(), 0.08 + 0.9 * level)


def contrast(left: Vec3, right: Vec3) -> float:
    """Euclidean distance of two colours, 0 to about 1.73."""
    return sum((a - b) ** 2 for a, b in zip(left, right, strict=True)) ** 0.5


def draw_palette(draw: Draw) -> Palette:
    """Two to four colours, each at least 0.35 from the one before (the best of a few tries otherwise)."""
    palette = [draw_color(draw)]
    for _ in range(1 + int(3 * draw())):
        tries = [draw_color(draw) for _ in range(3)]
        apart = [color for color in tries if contrast(color, palette[-1]) >= 0.35]
        palette.append(apart[0] if apart else max(tries, key=lambda color: contrast(color, palette[-1])))
    return tuple(palette)


def _pick(draw: Draw, weighted: Sequence[tuple[Pattern, float]]) -> Pattern:
    left = draw() * sum(weight for _, weight in weighted)
    for name, weight in weighted:
        left -= weight
        if left < 0:
            return name
    return weighted[-1][0]


def draw_turn(draw: Draw) -> Vec3:
    """Pattern angles: along an axis two times in three, else any."""
    if draw() < 0.65:
        return _SQUARE_TURNS[int(draw() * len(_SQUARE_TURNS))]
    return 360.0 * draw(), 360.0 * draw(), 360.0 * draw()


def plain(color: Vec3, gloss: float = 0.2) -> Material:
    """One colour all over."""
    return Material("plain", (color, color, color), gloss=gloss)


def draw_material(
    draw: Draw, palette: Palette, role: int, plain_share: float, noisy: bool = False
) -> Material:
    """Return a material on palette colour `role` (modulo its length); plain with chance `plain_share`."""
    count = len(palette)
    base = palette[role % count]
    gloss = draw() ** 2 * 0.9
    if draw() < plain_share:
        return plain(base, gloss)
    second = palette[(role + 1 + int(draw() * (count - 1))) % count]
    third = draw_color(draw) if draw() < 0.4 else palette[int(draw() * count)]
    return Material(
        pattern=_pick(draw, _NOISY if noisy else _PATTERNED),
        colors=(base, second, third),
        scale=2.2 * 3.2 ** draw(),
        turn=draw_turn(draw),
        seed=int(draw() * 2**31),
        gloss=gloss,
    )


def draw_emblem(draw: Draw, palette: Palette, role: int) -> Material:
    """Return a sign or letters on the base colour; the renderer fits it to the front of the part."""
    base = palette[role % len(palette)]
    ink = palette[(role + 1) % len(palette)]
    return Material(
        pattern="emblem",
        colors=(base, ink, draw_color(draw)),
        seed=int(draw() * 2**31),
        gloss=0.6 * draw(),
    )
