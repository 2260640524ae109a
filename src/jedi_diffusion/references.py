"""References: pictures of the subject, and how they are read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from jedi_diffusion.errors import PictureError, UsageError
from jedi_diffusion.pictures import WHITE, open_mask, to_mask, upright_size

if TYPE_CHECKING:
    from torch import Tensor

    from jedi_diffusion.inputs import Picture
    from jedi_diffusion.options import Masking
    from jedi_diffusion.visibility import Box, Visibility


logger = logging.getLogger(__name__)

MARGIN = 0.05
"""Of a region's sides, that subjects which are placed in it keep free."""
FADED = 0.8
"""How white sheets and the page show what masks leave out."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A picture of the subject as `JeDiPipeline` takes it, and how it is read.

    caption: what it shows, in words. mask: a picture of the same size, white on what is read and black beside
    it, or one whose ground is transparent; an array or a tensor (H, W) of bool, 8 bits, or 0 to 1; None: all
    of the picture is read. strength: how much it counts, above 0: with 2 as if it were given twice.
    subject: which one it shows, from 0, where one picture is to show several; references of different ones
    do not read each other. region: the part of new pictures that reads it, (left, top, right, bottom) in
    shares of width and height; None: all of them.
    """

    picture: Picture
    caption: str = ""
    mask: Picture | None = None
    strength: float = 1.0
    subject: int = 0
    region: Box | None = None


@dataclass(frozen=True)
class OwnShape:
    """How a model reads references that keep their shape: in about `pixels` at most; a side has at least
    `least` pixels, and at most `ratio` times those of the other."""

    pixels: int
    least: int
    ratio: int

    def check(self, size: tuple[int, int], called: str) -> None:
        """Raise UsageError, with what it is called, for a picture of a (width, height) that is not read."""
        width, height = size
        if min(size) < self.least or max(size) > self.ratio * min(size):
            raise UsageError(
                f"{called} has {width} x {height} pixels; this model reads sides of at least {self.least} "
                f"pixels and at most {self.ratio} times the other: cut it to its subject."
            )


def listed_references(
    references: Sequence[Picture | Reference] | Picture | Reference, captions: str | Sequence[str] | None
) -> list[Reference]:
    """Return none, one, several or a tensor (R, 3, H, W) of pictures, with their captions.

    captions: None, one for all, or one each, in place of the references' own. Raises UsageError for another
    number, or if references have their own too.
    """
    several: Sequence[Picture | Reference]
    if isinstance(references, list | tuple) or getattr(references, "ndim", 3) == 4:
        several = list(references)  # type: ignore[arg-type]
    else:
        several = [references]  # type: ignore[list-item]
    listed = [each if isinstance(each, Reference) else Reference(each) for each in several]
    if captions is None:
        return listed
    if any(each.caption for each in listed):
        raise UsageError("References have captions of their own: leave reference_prompts out.")
    each_own = [captions] * len(listed) if isinstance(captions, str) else list(captions)
    if len(each_own) != len(listed):
        raise UsageError(
            f"There are {len(each_own)} reference prompts for {len(listed)} references; "
            "give one for each, a single one for all, or none."
        )
    return [replace(each, caption=caption) for each, caption in zip(listed, each_own, strict=True)]


def with_found_masks(references: Sequence[Reference]) -> list[Reference]:
    """Return the references, each that has no mask with that of its subject, as `subject_masks` finds it.

    One in which no subject is found stays as it is, with a warning. Raises UsageError for what is no picture.
    """
    from jedi_diffusion.inputs import to_image
    from jedi_diffusion.vision.subject_mask import subject_masks

    made, unmasked = list(references), [n for n, each in enumerate(references) if each.mask is None]
    masks = subject_masks([to_image(references[n].picture, n + 1) for n in unmasked])
    for n, mask in zip(unmasked, masks, strict=True):
        if mask.any():
            made[n] = replace(made[n], mask=Image.fromarray(mask.astype(np.uint8) * 255))
        else:
            logger.warning("No subject was found in reference %d: all of it is read. Draw its mask.", n + 1)
    return made


def read_pictures(
    references: Sequence[Reference], fit: Callable[[Sequence[Picture]], list[Tensor]], masking: Masking
) -> tuple[list[Tensor], list[Visibility | None]]:
    """Return the pictures as a model reads them, (3, H, W) in [-1, 1], and what is read of each.

    masking: "tokens": what masks leave out is not read; "white": it is painted white, and all is read.
    fit, None and errors: as in `visibility_of`.
    """
    pixels, visibility = fit([each.picture for each in references]), visibility_of(references, fit)
    if masking == "white":
        for number, seen in enumerate(visibility):
            if seen is not None and seen.mask is not None:
                mask = seen.mask.to(pixels[number])
                pixels[number] = pixels[number] * mask + 1 - mask
                seen = replace(seen, mask=None)
                visibility[number] = None if seen.is_whole else seen
    return pixels, visibility


def visibility_of(
    references: Sequence[Reference], fit: Callable[[Sequence[Picture]], list[Tensor]]
) -> list[Visibility | None]:
    """Return what is read of each reference, None for all of it as it is.

    fit: brings pictures to the form in which a model reads them, (3, H, W) in [-1, 1]; masks go the same way.
    Raises UsageError that names the number of a reference whose mask or strength is wrong.
    """
    from jedi_diffusion.visibility import Visibility

    made: list[Visibility | None] = []
    are_apart = any(each.subject or each.region is not None for each in references)
    for number, reference in enumerate(references, start=1):
        mask = None
        if reference.mask is not None:
            drawn = mask_image(reference.mask, size_of(reference.picture), number)
            mask = ((fit([drawn.convert("RGB")])[0][0] + 1) / 2).clamp(0, 1)
            if not bool((mask > 0).any()):
                raise UsageError(
                    f"Reference {number} is cut to its centre, where its mask shows nothing: cut the picture "
                    "and its mask to the subject."
                )
            mask = None if bool((mask == 1).all()) else mask
        try:
            subject = reference.subject if are_apart else None
            visibility = Visibility(mask, reference.strength, reference.region, subject)
        except UsageError as error:
            raise UsageError(f"Of reference {number} the {error}") from error
        made.append(None if visibility.is_whole else visibility)
    return made


def mask_image(mask: Picture, size: tuple[int, int], number: int) -> Image.Image:
    """Return the mask of reference `number`, whose picture has `size`, (width, height), as 8-bit grays (L).

    Raises UsageError for what is no mask, another size, and an empty one.
    """
    try:
        drawn = to_mask(ImageOps.exif_transpose(_as_image(mask)))
    except (TypeError, PictureError) as error:
        raise UsageError(
            f"The mask of reference {number} is neither a picture in 8 bits nor an array or tensor (height, "
            "width) of bools, 8 bits, or numbers from 0 to 1."
        ) from error
    check_mask(drawn, size, f"The mask of reference {number}", "its picture")
    return drawn


def check_mask(mask: Image.Image, size: tuple[int, int], called: str, picture: str) -> None:
    """Raise UsageError for a mask (L) of another size, (width, height), than its picture's, or an empty one.

    called, picture: what they are called.
    """
    if mask.size != size:
        own, other = (f"{width}x{height}" for width, height in (mask.size, size))
        raise UsageError(f"{called} has {own} pixels, but {picture} has {other}: they must be of one size.")
    if mask.getextrema()[1] == 0:
        raise UsageError(f"{called} is empty: nothing in it is white, so nothing of {picture} would be read.")


def open_mask_of(photo: bytes, photo_name: str, mask: bytes, mask_name: str) -> Image.Image:
    """Return the mask (L), in its own size, of a photo; both are encoded pictures of these names.

    Raises PictureError for what is no picture, another size than the photo's, upright, and an empty mask.
    """
    drawn = open_mask(mask, mask_name)
    try:
        check_mask(drawn, upright_size(photo, photo_name), f"The mask {mask_name}", photo_name)
    except UsageError as error:
        raise PictureError(str(error)) from error
    return drawn


def faded(picture: Image.Image, mask: Image.Image | None) -> Image.Image:
    """Return an RGB picture, faded where its mask (L), of the same size, is black."""
    if mask is None:
        return picture
    white = Image.blend(picture, Image.new("RGB", picture.size, WHITE), FADED)
    return Image.composite(picture, white, mask)


def placed(picture: Image.Image, mask: Image.Image, region: Box) -> tuple[Image.Image, Image.Image]:
    """Return a picture of the same size in which the subject stands in a region, on white, and its mask (L).

    The subject, what the mask (L) shows, is scaled so that it just fits, and stands on the middle of the
    region's lower edge, with a margin of MARGIN of the region's sides. An empty mask changes nothing.
    """
    box = mask.getbbox()
    if box is None:
        return picture, mask
    width, height = picture.size
    left, right = region[0] * width, region[2] * width
    top, bottom = region[1] * height, region[3] * height
    inner = (right - left) * (1 - 2 * MARGIN), (bottom - top) * (1 - 2 * MARGIN)
    scale = min(inner[0] / (box[2] - box[0]), inner[1] / (box[3] - box[1]))
    size = max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale))
    subject = picture.crop(box).resize(size, Image.Resampling.LANCZOS)
    shape = mask.crop(box).resize(size, Image.Resampling.BILINEAR)
    corner = round((left + right - size[0]) / 2), round(bottom - (bottom - top) * MARGIN - size[1])
    made, where = Image.new("RGB", picture.size, WHITE), Image.new("L", picture.size)
    made.paste(subject, corner, shape)
    where.paste(shape, corner)
    return made, where


def size_of(picture: Picture) -> tuple[int, int]:
    """Return (width, height) of a picture, upright."""
    if isinstance(picture, Image.Image):
        return ImageOps.exif_transpose(picture).size
    height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else picture.shape[1:]
    return width, height


def _as_image(mask: Picture) -> Image.Image:
    """Return the mask as a picture. Raises TypeError for values or shapes that are no mask's."""
    if isinstance(mask, Image.Image):
        if mask.mode == "F":
            raise TypeError("floating-point pixels")
        return mask
    values = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.squeeze(0 if values.shape[0] == 1 else 2)
    if values.ndim != 2:
        raise TypeError(f"a mask of shape {values.shape}")
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    elif np.issubdtype(values.dtype, np.floating):
        if not ((values >= 0) & (values <= 1)).all():
            raise TypeError("values outside 0..1")
        values = np.round(values * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise TypeError(f"a mask of {values.dtype}")
    return Image.fromarray(values)
