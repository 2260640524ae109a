"""Collages of one subject, and scenes with nobody in them: what single-image models are stood in for by.

A collage holds views of one subject on a plain background or on tiles of different colors, and, as those of
real models do, some of a look-alike and some that the border or a tile's edge cuts off. Letters: I pictures;
H, W pixels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from jedi_diffusion.errors import ModelError
from jedi_toybox import clutter, renderer, scenes, world
from jedi_toybox.camera import random_camera
from jedi_toybox.packing import Staged, pack
from jedi_toybox.parts import Material, Part

CELLS = 3
"""Cells of a side; a view stands in each of some of them."""
VIEW = 0.92
"""Side of a view, part of its cell's."""
VIEWS = (3, 5)
"""Least and most views of the collage's subject."""
LOOKALIKES = (0.4, 0.4, 0.2)
"""Probabilities of 0, 1 and 2 views of the look-alike, another individual of the same class."""
CUT_SHARE = 0.4
"""Of the collages, those with a view that the border or a tile's edge cuts off."""
TILED_SHARE = 0.3
"""Of the collages, those in which every cell is a tile with a background of its own."""
FRAME = (0, 4)
"""Least and most pixels between tiles and around them, at 240 pixels a side."""
LIGHTS = ("on a wooden floor", "on a tiled floor", "on the grass", "in a kitchen")
"""Scenes whose light falls on the views of a collage."""
NOISE = 1.5
"""Standard deviation of the background's noise, in steps of 255."""

_CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (0.0, 1.0) for z in (-0.5, 0.5)], dtype=np.float32)
_FAR = np.array([50.0, 0.0, 50.0], dtype=np.float32)
# The packer wants a part; this one is under the ground, and so is its shadow.
_NOBODY = Part("ellipsoid", (0.0, -3.0, 0.0), (0.01, 0.01, 0.01), Material())

Pixels = NDArray[np.uint8]
Window = tuple[int, int, int, int]
"""left, top, right, bottom, in pixels of the collage."""


class Panel(NamedTuple):
    """A view in a collage: whom it shows, where (left, top, right, bottom), and whether it is whole."""

    subject: world.Subject
    box: Window
    whole: bool


class DrawnCollage(NamedTuple):
    picture: Image.Image
    panels: tuple[Panel, ...]


def read_subject(prompt: str) -> world.Subject:
    """Return the training subject that a prompt means: the class that it names first, the individual by its
    words.

    Raises ModelError for a prompt that names no class of the toybox.
    """
    words = [*world.CLASSES, *world.THING_NOUNS]
    found = re.search(rf"\b({'|'.join(map(re.escape, words))})\b", prompt.lower())
    if found is None:
        raise ModelError(
            f"The toybox can draw none of what {prompt[:80]!r} names; it knows {', '.join(words)}."
        )
    digest = hashlib.blake2b(prompt.lower().encode(), digest_size=5).digest()
    return world.sample_subject(int.from_bytes(digest), "train", found[1])


def draw_collage(prompt: str, seed: int, size: int, rays: int = 2) -> DrawnCollage:
    """Return a collage of `size` pixels a side, rays x rays a pixel. The prompt says who, the seed how."""
    subject = read_subject(prompt)
    rng = np.random.default_rng([subject.seed, seed])
    lookalike = world.sample_subject(int(rng.integers(1 << 40, 1 << 41)), "train", subject.noun)
    own = int(rng.integers(VIEWS[0], VIEWS[1] + 1))
    others = int(rng.choice(len(LOOKALIKES), p=LOOKALIKES))
    shown = [subject] * own + [lookalike] * others
    light = LIGHTS[int(rng.integers(len(LIGHTS)))]
    specs = [
        world.sample_picture(each, int(rng.integers(1 << 40)), light, style="", attribute="")
        for each in shown
    ]
    drawn = world.render(specs, round(VIEW * size / CELLS), rays)
    canvas = _background(size, rng)
    cells = rng.permutation(CELLS * CELLS)[: len(shown)].tolist()
    cut = int(rng.integers(len(shown))) if rng.random() < CUT_SHARE else None
    windows = _windows(canvas, np.random.default_rng([subject.seed, seed, 1]))
    panels = []
    for number, (each, cell) in enumerate(zip(shown, cells, strict=True)):
        mask = drawn.masks[number].numpy()
        view = without_fringe(drawn.pictures[number].permute(1, 2, 0).numpy(), mask)
        center = _place(cell, size, windows[cell], number == cut, rng)
        box, whole = _paste(canvas, windows[cell], view, mask, center)
        panels.append(Panel(each, box, whole))
    return DrawnCollage(Image.fromarray(canvas), tuple(panels))


def _windows(canvas: Pixels, rng: np.random.Generator) -> list[Window]:
    """Where a view of each cell is seen: on the whole canvas, or on the cell's tile, which is drawn here."""
    size = len(canvas)
    if rng.random() >= TILED_SHARE:
        return [(0, 0, size, size)] * CELLS**2
    frame = round(rng.integers(FRAME[0], FRAME[1] + 1) * size / 240)
    canvas[:] = rng.choice((255, 20))
    windows = []
    for row, column in np.ndindex(CELLS, CELLS):
        left, top = column * size // CELLS + frame // 2, row * size // CELLS + frame // 2
        side = size // CELLS - frame
        canvas[top : top + side, left : left + side] = _background(side, rng)
        windows.append((left, top, left + side, top + side))
    return windows


def _background(size: int, rng: np.random.Generator) -> Pixels:
    """(H, W, 3) of one color, a little lighter at one end, with noise."""
    light = rng.random() < 0.8
    color = (
        rng.uniform(205, 250) + rng.uniform(-12, 5, 3)
        if light
        else rng.uniform(25, 60) + rng.uniform(-8, 8, 3)
    )
    slope = np.linspace(-1, 1, size)[:, None, None] * rng.uniform(-8, 8)
    pixels = color + slope + rng.normal(0, NOISE, (size, size, 3))
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _place(cell: int, size: int, window: Window, cut: bool, rng: np.random.Generator) -> tuple[int, int]:
    """Return the middle (column, row) of a view: in its cell, or on an edge of the window beside it."""
    row, column = divmod(cell, CELLS)
    middle = [(place + 0.5) * size / CELLS for place in (column, row)]
    if cut:
        axis = int(rng.integers(2))
        middle[axis] = float(window[axis + 2] if rng.random() < 0.5 else window[axis])
    x, y = (round(place + rng.uniform(-0.03, 0.03) * size / CELLS) for place in middle)
    return x, y


def without_fringe(view: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """(H, W, 3): what the mask holds, its outermost pixels in the mean color of their neighbours further in.

    A pixel on the outline has some of what was behind it, which would be a bright fringe elsewhere.
    """
    height, width = mask.shape
    near = [np.s_[down : down + height, over : over + width] for down, over in np.ndindex(3, 3)]
    padded = np.pad(mask, 1)
    inner = np.logical_and.reduce([padded[part] for part in near])
    colors, there = (
        np.pad(view * inner[..., None].astype(np.int64), ((1, 1), (1, 1), (0, 0))),
        np.pad(inner, 1),
    )
    count = np.sum([there[part] for part in near], axis=0)
    edge = mask & ~inner & (count > 0)
    clean = view.copy()
    clean[edge] = np.round(np.sum([colors[part] for part in near], axis=0)[edge] / count[edge, None])
    return clean


def _paste(
    canvas: Pixels, window: Window, view: Pixels, mask: NDArray[np.bool_], center: tuple[int, int]
) -> tuple[Window, bool]:
    """Put what the mask spans onto the canvas, its middle at `center`, as far as it is in the window.

    Gives where it is seen then, and whether all of it.
    """
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    down, over = center[1] - (top + bottom) // 2, center[0] - (left + right) // 2
    rows, columns = rows + down, columns + over
    inside = (rows >= window[1]) & (rows < window[3]) & (columns >= window[0]) & (columns < window[2])
    canvas[rows[inside], columns[inside]] = view[rows[inside] - down, columns[inside] - over]
    seen_rows, seen_columns = rows[inside], columns[inside]
    box = (seen_columns.min(), seen_rows.min(), seen_columns.max() + 1, seen_rows.max() + 1)
    left, top, right, bottom = (int(edge) for edge in box)
    return (left, top, right, bottom), bool(inside.all())


def find_scene(prompt: str, seed: int) -> str:
    """Return the longest scene of the toybox that a prompt names; one drawn by the seed where it
    names none.
    """
    named = [scene for scene in world.SCENES if scene in prompt.lower()]
    return max(named, key=len) if named else world.SCENES[seed % len(world.SCENES)]


def draw_scenes(names: Sequence[str], seeds: Sequence[int], size: int, rays: int = 2) -> Pixels:
    """(I, H, W, 3): the scenes of these names with nobody in them, as cameras around a subject see them."""
    staged = [_staged(name, seed) for name, seed in zip(names, seeds, strict=True)]
    parts = [
        renderer.draw(pack(staged[first : first + renderer.CHUNK]), size, rays, compiled=False).pictures
        for first in range(0, len(staged), renderer.CHUNK)
    ]
    pixels: Pixels = (torch.cat(parts).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return pixels


def _staged(name: str, seed: int) -> Staged:
    rng = np.random.default_rng([world.SCENES.index(name), seed])
    camera = random_camera(_CUBE, rng)
    around = clutter.clutter(name, rng)
    turn = camera.azimuth + rng.uniform(-0.4, 0.4)
    return Staged([_NOBODY], around, camera, _CUBE + _FAR, scenes.pack_scene(name, rng), turn)
