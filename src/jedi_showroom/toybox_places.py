"""The toybox's scenes without a subject, seen by a composed picture's camera."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from jedi_showroom.views import FLOOR, Framing
from jedi_toybox import clutter, renderer, scenes
from jedi_toybox.camera import Camera
from jedi_toybox.packing import Staged, pack

_UNIT = 0.55  # of the toybox's lengths for one of the cut-out's
_TURN = np.radians(25)


def toybox_backgrounds(
    shots: Sequence[tuple[str, Framing, int]], size: int, device: str, compiled: bool
) -> list[NDArray[np.floating]]:
    """Draw (scene, framing, seed) each as a picture (H, H, 3) sRGB in 0..1, `size` pixels a side."""
    drawn: list[NDArray[np.floating]] = []
    for start in range(0, len(shots), renderer.CHUNK):
        staged = [_staged(*shot) for shot in shots[start : start + renderer.CHUNK]]
        count = len(staged)
        if compiled:  # for one size
            staged += staged[-1:] * (renderer.CHUNK - count)
        raw = renderer.draw(pack(staged).to(device), size, 1, compiled)
        pixels = raw.pictures[:count].clamp(0, 1).permute(0, 2, 3, 1)
        drawn.extend(pixels.to(torch.float32).cpu().numpy())
    return drawn


def _staged(scene: str, framing: Framing, seed: int) -> Staged:
    rng = np.random.default_rng(seed)
    scene_rng, clutter_rng = rng.spawn(2)
    eye = framing.position * _UNIT
    lift = -FLOOR * _UNIT
    camera = Camera(
        position=(0.0, float(eye[1] + lift), float(-eye[2])),
        target=(0.0, lift, 0.0),
        tangent=framing.picture_tangent,
        shift=(-framing.right, -framing.up),
    )
    foot = np.array([[x, 0.0, z] for x in (-0.02, 0.02) for z in (-0.02, 0.02)], dtype=np.float32)
    turn = float(rng.uniform(-_TURN, _TURN))
    around = clutter.clutter(scene, clutter_rng)
    return Staged([], around, camera, foot, scenes.pack_scene(scene, scene_rng), turn)
