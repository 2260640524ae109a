"""Photographed panoramas: light for renders, and backgrounds seen by a camera.

Letters: H pixels of a picture's side; h rows of a panorama, which has 2h columns.
"""

import base64
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from jedi_diffusion.files import write_file
from jedi_showroom.packages import PANORAMAS, members
from jedi_showroom.rendering import load_bitmap
from jedi_showroom.views import Array

BRIGHTEST = 60.0  # linear radiance that brighter pixels, the sun among them, are clipped to
PHRASES: Mapping[str, str] = {
    "apartment": "in an apartment",
    "bridge": "on a bridge",
    "city": "in the city",
    "dawn": "in the hills at dawn",
    "esplanade": "in a mall",
    "forest": "in a forest",
    "hall": "in a ballroom",
    "lab": "in a machine hall",
    "lobby": "in a lobby",
    "night": "in a field at night",
    "park": "in a park",
    "sky": "in the clouds",
    "studio": "in a photo studio",
    "sunrise": "on a meadow at sunrise",
    "sunset": "on a square at sunset",
    "venice": "by the sea at dusk",
    "warehouse": "in a warehouse",
    "workshop": "in a workshop",
}
"""Panoramas by their file's name, and the place's words in a caption."""


def unpack(packages: Path, folder: Path) -> None:
    """Write every panorama of PHRASES as an EXR file to `folder`."""
    for name, content in members(packages, PANORAMAS):
        stem = PurePosixPath(name).name.removesuffix(".exr.js")
        encoded = re.search(rb"base64,([A-Za-z0-9+/=]+)", content)
        if stem in PHRASES and encoded:
            write_file(folder / f"{stem}.exr", base64.b64decode(encoded[1]))


def read(path: Path) -> Array:
    """Read a panorama (h, 2h, 3) of linear radiance in 0..BRIGHTEST, float32; broken pixels become the
    brightest.
    """
    raw = load_bitmap(path)[..., :3].astype(np.float32)
    return np.clip(np.nan_to_num(raw, nan=BRIGHTEST, posinf=BRIGHTEST), 0.0, BRIGHTEST)


def soft_light(panorama: Array) -> Array:
    """Return the panorama's light on a subject (h, 2h, 3): without its tint, so that subjects keep their own
    colours, blurred and without hard suns, so that few rays a pixel are enough.
    """
    gray = panorama.mean(axis=-1)
    rows, columns = gray.shape[0] // 8, gray.shape[1] // 8
    coarse = gray[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).mean(axis=(1, 3))
    coarse = np.minimum(coarse, 5 * coarse.mean()) + 0.3 * coarse.mean()
    return np.repeat(coarse[..., None], 3, axis=-1).astype(np.float32)
