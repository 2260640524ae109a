"""Pictures with everything but their subject taken away, for the masked scores (MCLIP-I, MDINO; section 4).

The paper cuts subjects out with a detector and a segmenter and says no more. Here what is not the subject
becomes white, and the subject stays where it is, at its size.
Letters: B pictures; H, W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from jedi_diffusion.errors import PictureError
from jedi_diffusion.files import MASK_ENDING
from jedi_diffusion.pictures import WHITE, open_mask
from jedi_diffusion.vision.detection import Mask


def mask_beside(picture: Path) -> Path:
    """Return where the mask of a picture is given."""
    return picture.with_suffix(MASK_ENDING)


def read_mask(data: bytes, name: str, size: tuple[int, int]) -> Mask:
    """Return (H, W) from the bytes of a mask picture, for a picture of `size` = (W, H).

    Raises PictureError.
    """
    mask = open_mask(data, name)
    if mask.size != size:
        raise PictureError(
            f"The mask {name} has {mask.width}x{mask.height} pixels, its picture {size[0]}x{size[1]}."
        )
    return np.asarray(mask) >= 128


def cut_out(picture: Image.Image, mask: Mask) -> Image.Image | None:
    """Return the picture with white in place of all that the mask does not cover; None where it covers
    nothing.
    """
    if not mask.any():
        return None
    values = np.where(mask[:, :, None], np.asarray(picture), np.array(WHITE, np.uint8))
    return Image.fromarray(values.astype(np.uint8))
