"""What of a visitor's photo is read: its mask, found or drawn by strokes of a brush, and the way back."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Annotated

from PIL import Image, ImageDraw
from pydantic import Field

from jedi_diffusion.app.session import Photo
from jedi_diffusion.errors import UsageError
from jedi_diffusion.options import Fraction, Section, read
from jedi_diffusion.pictures import png_bytes

MOST_UNDONE = 20
"""Changes of a mask that can be taken back."""
MOST_POINTS = 2000
"""Points of one stroke."""
MOST_STROKES = 100
"""Strokes of one message."""
MAX_MESSAGE = 2**20
"""Characters of one message."""
READ, LEFT_OUT = 255, 0


class Stroke(Section):
    """One stroke over the photo of this key: what it covers is read, or with `erase` left out.

    number: grows from stroke to stroke. radius: in shares of the photo's longer side. points: of its line, in
    shares of width and height.
    """

    photo: str
    number: Annotated[int, Field(ge=1, lt=2**53)]
    radius: Annotated[float, Field(gt=0, le=0.5)]
    erase: bool
    points: Annotated[list[tuple[Fraction, Fraction]], Field(min_length=1, max_length=MOST_POINTS)]


class Strokes(Section):
    """What a browser sends: strokes in order, of which the first may have been taken before."""

    strokes: Annotated[list[Stroke], Field(max_length=MOST_STROKES)]


def read_strokes(message: str) -> list[Stroke]:
    """Return the strokes of a message in JSON. Raises UsageError."""
    try:
        values = json.loads(message) if len(message) <= MAX_MESSAGE else None
    except (ValueError, RecursionError):
        values = None
    if values is None:
        raise UsageError("The strokes of the brush did not arrive as they were drawn; draw them again.")
    return read(Strokes, {"strokes": values}).strokes


def paint(photo: Photo, strokes: Sequence[Stroke]) -> None:
    """Draw those strokes over the photo that are new. Where it has no mask yet, what is painted is all that
    is read of it, or all that is left out."""
    for stroke in strokes:
        if stroke.photo == photo.key and stroke.number > photo.painted:
            start = photo.mask or Image.new("L", photo.picture.size, READ if stroke.erase else LEFT_OUT)
            remember(photo)
            photo.mask, photo.painted = painted(start, stroke), stroke.number


def painted(mask: Image.Image, stroke: Stroke) -> Image.Image:
    """Return a mask (L) with a stroke: a line with round ends."""
    width, height = mask.size
    radius = max(0.5, stroke.radius * max(width, height))
    value = LEFT_OUT if stroke.erase else READ
    points = [(x * width, y * height) for x, y in stroke.points]
    made = mask.copy()
    draw = ImageDraw.Draw(made)
    draw.line(points, value, width=max(1, round(2 * radius)))
    for x, y in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)
    return made


def set_mask(photo: Photo, mask: Image.Image | None) -> None:
    """Give the photo another mask (L), of its size, or none; `undo` gives back the present one."""
    remember(photo)
    photo.mask = mask


def remember(photo: Photo) -> None:
    """Keep the photo's mask for `undo`, packed."""
    now = b"" if photo.mask is None else png_bytes(photo.mask.convert("1"))
    photo.undone = (*photo.undone, now)[-MOST_UNDONE:]


def undo(photo: Photo) -> None:
    """Take the last change of the photo's mask back, if there was one."""
    if photo.undone:
        *kept, last = photo.undone
        photo.mask = Image.open(io.BytesIO(last)).convert("L") if last else None
        photo.undone = tuple(kept)
