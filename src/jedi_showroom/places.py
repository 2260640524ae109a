"""Places: what stands around a subject, as seen by a picture's camera.

Letters: H pixels of a side.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from PIL import Image

from jedi_diffusion.errors import DataError
from jedi_showroom import panoramas
from jedi_showroom.packages import FLOORS, members, require
from jedi_showroom.views import FLOOR, Array, Framing, sample

FLOOR_PHRASES: Mapping[str, tuple[str, str]] = {
    "light-wood": ("on a wooden floor", "cream-plaster"),
    "dark-wood": ("on dark boards", "gray-plaster"),
    "wood-tiles": ("on a parquet floor", "white-plaster"),
    "wood-varnished-panels": ("on varnished boards", "yellow-plaster"),
    "light-gray-floor-tile": ("on a tiled floor", "light-gray-plaster"),
    "gray-felt": ("on a felt carpet", "pink-plaster"),
    "dirt": ("on the soil", "white-bricks"),
    "steel-scratched": ("on a steel table", "gray-plaster"),
    "blue-wood": ("on blue boards", "white-plaster"),
    "red-wood": ("on red boards", "cream-plaster"),
    "green-wood": ("on green boards", "light-gray-plaster"),
    "clay": ("on clay", "white-bricks"),
}
"""Floors by their texture, the place's words, and the texture of the wall behind."""

PLAIN = "on a plain background"
_TILE = 2.2  # lengths that a floor's texture covers before it repeats
_WALL_TILE = 3.0
_KEY = 0.42  # what the middle brightness of a panorama is brought to


class Place(Protocol):
    """A background."""

    @property
    def phrase(self) -> str:
        """The place's words in a caption."""
        ...

    def background(self, framing: Framing, side: int, rng: np.random.Generator) -> Array:
        """Return the picture without a subject, (H, H, 3) sRGB in 0..1, a function of the arguments alone."""
        ...


@dataclass(frozen=True)
class Panorama:
    """A photographed place, seen in any direction; its lower half is the ground."""

    phrase: str
    radiance: Array

    def background(self, framing: Framing, side: int, rng: np.random.Generator) -> Array:
        rays = framing.directions(side)
        rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        height, width = self.radiance.shape[:2]
        turn = rng.uniform(0, width)
        columns = np.arctan2(rays[..., 0], rays[..., 2]) / (2 * np.pi) * width + turn
        rows = (0.5 - np.arcsin(np.clip(rays[..., 1], -1, 1)) / np.pi) * height - 0.5
        seen = sample(self.radiance, rows, columns)
        # Half of the exposure follows what is seen, as a photographer's would.
        whole, here = _middle(self.radiance), _middle(seen)
        exposure = _KEY / np.sqrt(whole * here) * rng.uniform(0.8, 1.25)
        light = seen * exposure
        light = light * (1 + light / 9) / (1 + light)
        return np.clip(light * 1.5, 0, 1) ** (1 / 2.2)


@dataclass(frozen=True)
class Room:
    """A textured floor before a textured wall."""

    phrase: str
    floor: Array
    wall: Array

    def background(self, framing: Framing, side: int, rng: np.random.Generator) -> Array:
        rays, eye = framing.directions(side), framing.position
        turn, shift = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1, 4)
        depth = rng.uniform(2.2, 6.0)
        to_floor = np.where(rays[..., 1] < -1e-4, (FLOOR - eye[1]) / np.minimum(rays[..., 1], -1e-4), np.inf)
        to_wall = (depth - eye[2]) / np.maximum(rays[..., 2], 1e-4)
        on_floor = to_floor < to_wall
        reach = np.where(on_floor, to_floor, to_wall)[..., None]
        point = eye + reach * rays
        x, y, z = np.moveaxis(point, -1, 0)
        across = (np.cos(turn) * x + np.sin(turn) * z) / _TILE + shift[0]
        along = (-np.sin(turn) * x + np.cos(turn) * z) / _TILE + shift[1]
        floor = _tiled(self.floor, along, across)
        wall = _tiled(self.wall, y / _WALL_TILE + shift[2], x / _WALL_TILE + shift[3])
        seen = np.where(on_floor[..., None], floor, wall)
        # The corner between floor and wall is darker, and light falls off to the back.
        near = np.exp(-np.abs(np.where(on_floor, depth - z, y - FLOOR)) / 0.5)
        shade = (1 - 0.35 * near) * np.where(on_floor, 1.0, 0.92) * rng.uniform(0.75, 1.1)
        tint = rng.uniform(0.93, 1.07, 3)
        return np.clip(seen * shade[..., None] * tint, 0, 1)


@dataclass(frozen=True)
class Plain:
    """One light colour, as behind a cut-out or in a catalogue."""

    phrase: str = PLAIN

    def background(self, framing: Framing, side: int, rng: np.random.Generator) -> Array:
        gray = rng.uniform(0.45, 0.97)
        colour = np.clip(gray + rng.uniform(-0.06, 0.06, 3), 0, 1)
        slope = np.linspace(1.02, 0.96, side)[:, None, None]
        return np.clip(np.broadcast_to(colour, (side, side, 3)) * slope, 0, 1)


def load_places(packages: Path, unpacked: Path) -> list[Place]:
    """Return every place of the packages, in a fixed order.

    Raises UsageError or DataError for a missing package or panorama, or another file in a package's place.
    """
    require(packages, (FLOORS,))
    places: list[Place] = [Plain()]
    for stem, phrase in panoramas.PHRASES.items():
        path = unpacked / "panoramas" / f"{stem}.exr"
        if not path.exists():
            raise DataError(f"{path} is missing: run `jedi showroom build` again.")
        places.append(Panorama(phrase, panoramas.read(path)))
    textures = {PurePosixPath(name).stem: content for name, content in members(packages, FLOORS)}
    for floor, (phrase, wall) in FLOOR_PHRASES.items():
        places.append(Room(phrase, _texture(textures[floor]), _texture(textures[wall])))
    return places


def _texture(content: bytes) -> Array:
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
        small = picture.convert("RGB").resize((192, 192), Image.Resampling.LANCZOS)
    return np.asarray(small, dtype=np.float32) / 255


def _tiled(texture: Array, along: Array, across: Array) -> Array:
    """Return the texture at coordinates that repeat at every whole number, mirrored so that edges meet."""
    height, width = texture.shape[:2]
    folded = np.abs((along % 2) - 1) * (height - 1)
    return sample(texture, folded, np.abs((across % 2) - 1) * (width - 1))


def _middle(radiance: Array) -> float:
    """Return the geometric mean of the brightness."""
    return float(np.exp(np.log(radiance.mean(axis=-1) + 1e-3).mean()))
