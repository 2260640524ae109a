"""A cut-out in a place: shadow, light and edge.

Letters: H pixels of a side.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jedi_showroom.cutouts import Cutout
from jedi_showroom.views import Array, Framing

SHADOW = 0.72  # of the floor's light that the deepest shadow takes
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class Look(NamedTuple):
    """A recolouring that makes another individual of a subject: `turn` of the hue in radians, factor of the
    saturation.
    """

    turn: float
    saturation: float


class Composed(NamedTuple):
    """A picture (H, H, 3) uint8 and the subject's exact mask (H, H) bool."""

    picture: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def recolored(rgba: NDArray[np.uint8], look: Look) -> NDArray[np.uint8]:
    """Return the cut-out with every hue turned and its saturation scaled, brightness kept."""
    cosine, sine = np.cos(look.turn) * look.saturation, np.sin(look.turn) * look.saturation
    turned = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    matrix = np.linalg.inv(_YIQ) @ turned @ _YIQ
    colour = np.clip(rgba[..., :3].astype(np.float32) @ matrix.T.astype(np.float32), 0, 255)
    return np.concatenate([colour.round().astype(np.uint8), rgba[..., 3:]], axis=-1)


def framed(layer: Image.Image, framing: Framing, side: int) -> Image.Image:
    """Return a cut-out's layer brought to its place in a picture of `side` pixels; empty around it."""
    size = max(1, round(framing.scale * side))
    left = round((1 + framing.right) / 2 * side - size / 2)
    top = round((1 - framing.up) / 2 * side - size / 2)
    # Premultiplied while it is scaled, so that hidden colours do not bleed into the edge.
    mode = layer.mode
    small = layer.convert("RGBa") if mode == "RGBA" else layer
    small = small.resize((size, size), Image.Resampling.LANCZOS).convert(mode)
    canvas = Image.new(mode, (side, side))
    canvas.paste(small, (left, top))
    return canvas


def compose(cutout: Cutout, framing: Framing, background: Array, rng: np.random.Generator) -> Composed:
    """Put the cut-out before the background (H, H, 3), lit as the background is."""
    side = len(background)
    subject = np.asarray(framed(Image.fromarray(cutout.rgba), framing, side), dtype=np.float32) / 255
    shadow = np.asarray(framed(Image.fromarray(cutout.shadow), framing, side), dtype=np.float32) / 255
    alpha = subject[..., 3:]
    ground = background * (1 - SHADOW * shadow[..., None])
    brightness = float(background.mean())
    tint = background.mean(axis=(0, 1)) / max(brightness, 1e-3)
    gain = np.clip((brightness / 0.45) ** 0.35, 0.55, 1.15) * rng.uniform(0.92, 1.08)
    lit = np.clip(subject[..., :3] * gain * tint**0.35, 0, 1)
    mixed = ground * (1 - alpha) + lit * alpha
    return Composed((mixed * 255).round().astype(np.uint8), alpha[..., 0] > 0.5)
