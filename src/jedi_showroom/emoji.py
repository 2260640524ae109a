"""The 3D emoji package: things and animals as pictures with alpha, one view each.

Letters: H pixels of a cut-out's side.
"""

import io
import json
import re
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jedi_diffusion.errors import DataError
from jedi_showroom.cutouts import FILL, SIDE, TANGENT, Cutout
from jedi_showroom.packages import EMOJI, EMOJI_NAMES, members
from jedi_showroom.rendering import blurred
from jedi_showroom.subjects import PREFIX_OF_FLAT, Subject, plain_noun
from jedi_showroom.views import Array

CATEGORIES = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places")
_LEFT_OUT = re.compile(r"\b(face|button|symbol|character|front facing|small|tear off)\b")
_ELEVATION = float(np.radians(12))  # of the camera that a picture was made with, about


def read_images(packages: Path) -> dict[str, bytes]:
    """WebP files by code point sequence ("1f43b")."""
    return {PurePosixPath(name).stem: content for name, content in members(packages, EMOJI)}


def read_subjects(packages: Path, available: set[str]) -> list[Subject]:
    """Return the emoji of CATEGORIES whose picture is among `available`; `member` is the code point
    sequence.
    """
    ((_, content),) = members(packages, EMOJI_NAMES)
    found: list[Subject] = []
    for row in json.loads(content):
        code = row["unified"].lower()
        code = code if code in available else code.replace("-fe0f", "")
        if row["category"] in CATEGORIES and code in available:
            found.append(Subject(f"{PREFIX_OF_FLAT}{code}", noun_of(row["name"]), code, "Microsoft", "MIT"))
    return found


def noun_of(name: str) -> str:
    """Return the Unicode name as a caption's noun: "TIGER FACE" is "tiger"."""
    words = re.sub(r"[^a-z' ]", " ", name.lower())
    return plain_noun(_LEFT_OUT.sub(" ", words)) or plain_noun(name)


def cutout_of(content: bytes) -> Cutout:
    """Return a picture with alpha, brought to the cut-outs' size, with an oval shadow under it."""
    with Image.open(io.BytesIO(content), formats=("WEBP",)) as picture:
        whole = picture.convert("RGBA")
    box = whole.getchannel("A").point(lambda value: 255 * (value > 24)).getbbox()
    if box is None:
        raise DataError("The picture is fully transparent.")
    whole = whole.crop(box)
    scale = FILL * SIDE / max(whole.size)
    size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
    # Premultiplied, so that colours of transparent pixels do not bleed into the edge.
    small = whole.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    place = ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2)
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(small, place)
    rgba = np.asarray(canvas)
    return Cutout(rgba, _standing_shadow(rgba[..., 3] / 255), 0.0, _ELEVATION, TANGENT)


def _standing_shadow(alpha: Array) -> NDArray[np.uint8]:
    """Return the shading of the floor under an upright picture: its lowest part, flattened and blurred."""
    side = len(alpha)
    rows = np.flatnonzero(alpha.max(axis=1) > 0.3)
    floor = int(rows[-1])
    height = max(1, (floor - int(rows[0])) // 4)
    foot = alpha[floor - height : floor + 1].mean(axis=0)
    depth = np.exp(-(((np.arange(side) - floor) / (0.05 * side)) ** 2))
    shade = blurred(depth[:, None] * foot[None], 1.5) * 0.7 + blurred(depth[:, None] * foot[None], 5.0) * 0.9
    return (255 * np.clip(shade, 0, 0.9)).astype(np.uint8)
