"""From pictures as they come to what training sees: squares of one size."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image, ImageOps

from jedi_diffusion.pictures import fit_square
from jedi_diffusion.sets import ImageSet


def square_set(given: ImageSet, resolution: int) -> ImageSet:
    """Return the set with the centres of its pictures and masks, squares of `resolution` pixels a side.

    Section 6: "We only use square images in training".
    """
    masks = None
    if given.masks is not None:
        masks = tuple(square_mask(mask, resolution) for mask in given.masks)
    return replace(
        given,
        pictures=tuple(fit_square(picture, resolution) for picture in given.pictures),
        masks=masks,
        info={**given.info, "subject": given.subject},
    )


def square_mask(mask: Image.Image, resolution: int) -> Image.Image:
    """Return the part of a mask that `fit_square` keeps of its picture."""
    return ImageOps.fit(mask, (resolution, resolution), Image.Resampling.BILINEAR)
