"""From parts, cameras and scenes to the tensors that the renderer works on.

Letters: I pictures; K slots; T parts of all pictures together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_toybox.camera import Camera, rotation_matrices, turn_matrices
from jedi_toybox.geometry import (
    CLUTTER_SLOTS,
    FIRST_SLOT,
    SHAPE_WIDTH,
    SLOT_COUNT,
    SUBJECT_SLOTS,
)
from jedi_toybox.parts import KINDS, PATTERNS, Part
from jedi_toybox.textures import emblem_bits

SURFACE_WIDTH = 22  # nine numbers of the pattern's matrix, three of its phase, nine of the colours, the gloss
CODE_WIDTH = 4  # pattern, seed, two words of the emblem

_EMBLEM, _GRADIENT = PATTERNS.index("emblem"), PATTERNS.index("gradient")
_CAPACITY = {True: SUBJECT_SLOTS, False: CLUTTER_SLOTS}
_PHASES = np.array([0.7548776662, 0.5698402910, 0.3247179572])  # a low-discrepancy step an axis
_FOOT = 0.12  # what is lower than this darkens the ground around it


@dataclass(frozen=True)
class Staged:
    """All that is seen in one picture.

    `points` (P, 3) outline the subject; `scene` is scenes.pack_scene's row. The scene and its clutter are
    laid out for a camera on +z: the scene is turned around the subject by `turn` radians, the clutter
    exactly towards the camera.
    """

    subject: Sequence[Part]
    clutter: Sequence[Part]
    camera: Camera
    points: NDArray[np.float32]
    scene: NDArray[np.float32]
    turn: float


class Packed(NamedTuple):
    """In the scene's coordinates: shapes (I, K, SHAPE_WIDTH), surfaces (I, K, SURFACE_WIDTH), codes
    (I, K, CODE_WIDTH) int32, views (I, 16): position, forward, right, up, the footprint's centre and
    half sides on x and z; scenes (I, SCENE_WIDTH). An empty slot is a part that no ray can meet.
    """

    shapes: Tensor
    surfaces: Tensor
    codes: Tensor
    views: Tensor
    scenes: Tensor

    def to(self, device: torch.device | str) -> "Packed":
        return Packed(*(tensor.to(device) for tensor in self))


def pack(pictures: Sequence[Staged]) -> Packed:
    """Raise UsageError if a picture has more parts of a kind than there are slots."""
    places, parts, turns = _places(pictures)
    shapes = np.zeros((len(pictures) * SLOT_COUNT, SHAPE_WIDTH), dtype=np.float32)
    shapes[:, 10] = 5.0  # an empty slot: every point is at (0, 5, 0), every direction is zero
    surfaces = np.zeros((len(pictures) * SLOT_COUNT, SURFACE_WIDTH), dtype=np.float32)
    codes = np.zeros((len(pictures) * SLOT_COUNT, CODE_WIDTH), dtype=np.int32)
    if parts:
        size = np.array([part.size for part in parts])
        shapes[places] = _shape_rows(parts, size, np.array(turns))
        surfaces[places], codes[places] = _surface_rows(parts, size)
    arrays = [each.reshape(len(pictures), SLOT_COUNT, -1) for each in (shapes, surfaces, codes)]
    views = np.stack([_view_row(picture) for picture in pictures])
    scenes = np.stack([picture.scene for picture in pictures])
    return Packed(*(torch.from_numpy(each) for each in (*arrays, views, scenes)))


def _places(pictures: Sequence[Staged]) -> tuple[list[int], list[Part], list[float]]:
    """Every part's slot, counted through all pictures; the parts; and their turn into the scene's
    coordinates.
    """
    places: list[int] = []
    parts: list[Part] = []
    turns: list[float] = []
    for number, picture in enumerate(pictures):
        for is_subject, group in ((True, picture.subject), (False, picture.clutter)):
            used = dict.fromkeys(KINDS, 0)
            for part in group:
                if used[part.kind] >= _CAPACITY[is_subject][part.kind]:
                    owner = "subject" if is_subject else "clutter"
                    raise UsageError(f"A picture's {owner} has too many parts of kind {part.kind!r}.")
                first = FIRST_SLOT[part.kind] + (0 if is_subject else SUBJECT_SLOTS[part.kind])
                places.append(number * SLOT_COUNT + first + used[part.kind])
                used[part.kind] += 1
            parts.extend(group)
            turns.extend(
                [-picture.turn if is_subject else picture.camera.azimuth - picture.turn] * len(group)
            )
    return places, parts, turns


def _shape_rows(parts: list[Part], size: NDArray, turns: NDArray) -> NDArray:
    rotation = rotation_matrices(np.array([part.rotation for part in parts]))
    matrix = rotation.transpose(0, 2, 1) / size[:, :, None]
    offset = -(matrix @ np.array([part.center for part in parts])[:, :, None])
    matrix = matrix @ turn_matrices(-turns)
    taper = np.array([[part.taper] for part in parts])
    return np.concatenate([matrix.reshape(-1, 9), offset[:, :, 0], taper], axis=1)


def _surface_rows(parts: list[Part], size: NDArray) -> tuple[NDArray, NDArray]:
    materials = [part.material for part in parts]
    pattern = np.array([PATTERNS.index(material.pattern) for material in materials])
    seed = np.array([material.seed for material in materials], dtype=np.int64) & 0x7FFFFFFF
    # an emblem is measured by the part's smaller side and a gradient by its height; the others in
    # repetitions a unit
    stretch = size * np.array([material.scale for material in materials])[:, None]
    emblem, gradient = (pattern == _EMBLEM)[:, None], (pattern == _GRADIENT)[:, None]
    stretch = np.where(
        emblem, size / size[:, :2].min(axis=1, keepdims=True), np.where(gradient, 1.0, stretch)
    )
    turn = rotation_matrices(np.array([material.turn for material in materials]))
    phase = np.where(emblem | gradient, 0.0, 1 + seed[:, None] * _PHASES % 1.0)
    colors = np.array([material.colors for material in materials]).reshape(-1, 9)
    gloss = np.array([[material.gloss] for material in materials])
    surfaces = np.concatenate([(turn * stretch[:, None, :]).reshape(-1, 9), phase, colors, gloss], axis=1)
    bits = [emblem_bits(int(s)) if p == _EMBLEM else (0, 0) for p, s in zip(pattern, seed, strict=True)]
    codes = np.concatenate([pattern[:, None], seed[:, None], np.array(bits)], axis=1)
    return surfaces, codes


def _view_row(picture: Staged) -> NDArray[np.float32]:
    camera = picture.camera
    turn = turn_matrices(np.array([-picture.turn]))[0].T
    points = picture.points @ turn
    right, up, forward = camera.basis @ turn
    right, up = right * camera.tangent, up * camera.tangent
    middle = forward + camera.shift[0] * right + camera.shift[1] * up
    feet = points[points[:, 1] < points[:, 1].min() + _FOOT][:, ::2]
    low, high = feet.min(axis=0), feet.max(axis=0)
    rows = [np.array(camera.position) @ turn, middle, right, up, (low + high) / 2, (high - low) / 2]
    return np.concatenate(rows).astype(np.float32)
