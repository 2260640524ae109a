"""A stylizer of Pillow's filters: no model, a handful of styles, milliseconds a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import PIL
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from jedi_diffusion.errors import ModelError
from jedi_diffusion.synthesis.adapters.settings import PlainSettings


def _gray(picture: Image.Image) -> Image.Image:
    return ImageOps.autocontrast(ImageOps.grayscale(picture)).convert("RGB")


def _sketch(picture: Image.Image) -> Image.Image:
    """Dodging by the blurred negative leaves the edges."""
    gray = ImageOps.grayscale(picture)
    blurred = ImageOps.invert(gray).filter(ImageFilter.GaussianBlur(max(2, picture.width / 40)))
    return ImageChops.add(ImageChops.screen(gray, blurred), ImageChops.constant(gray, 10)).convert("RGB")


def _pixels(picture: Image.Image) -> Image.Image:
    small = picture.resize([max(8, side * 3 // 8) for side in picture.size], Image.Resampling.BOX)
    return ImageOps.posterize(small, 3).resize(picture.size, Image.Resampling.NEAREST)


def _cartoon(picture: Image.Image) -> Image.Image:
    flat = ImageOps.posterize(ImageEnhance.Color(picture.filter(ImageFilter.MedianFilter(3))).enhance(1.6), 2)
    edges = ImageOps.grayscale(picture).filter(ImageFilter.FIND_EDGES)
    lines = edges.point(lambda value: 255 * (value < 110))
    # The filter leaves the outermost pixels as they were, which would be a frame.
    inner = Image.new("L", picture.size, 255)
    inner.paste(lines.crop((1, 1, picture.width - 1, picture.height - 1)), (1, 1))
    return ImageChops.multiply(flat, inner.convert("RGB"))


def _oil(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Color(picture.filter(ImageFilter.ModeFilter(5))).enhance(1.3)


def _watercolor(picture: Image.Image) -> Image.Image:
    wash = picture.filter(ImageFilter.MedianFilter(3 if picture.width < 256 else 5))
    wash = wash.filter(ImageFilter.GaussianBlur(picture.width / 256))
    return ImageEnhance.Brightness(ImageEnhance.Color(wash).enhance(0.8)).enhance(1.25)


def _vintage(picture: Image.Image) -> Image.Image:
    gray = ImageEnhance.Contrast(ImageOps.grayscale(picture)).enhance(0.7)
    return ImageOps.colorize(gray, black=(60, 42, 28), white=(245, 226, 186))


def _pop(picture: Image.Image) -> Image.Image:
    return ImageOps.solarize(ImageEnhance.Color(picture).enhance(2.0), 160)


FILTERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "make it a black-and-white photograph": _gray,
    "make it a pencil sketch": _sketch,
    "make it pixel art": _pixels,
    "make it a cartoon": _cartoon,
    "make it an oil painting": _oil,
    "make it a watercolor painting": _watercolor,
    "make it a faded vintage photograph": _vintage,
    "make it pop art": _pop,
}


class PillowStylizer:
    """`Stylizer` for the instructions of FILTERS."""

    def __init__(self) -> None:
        self.fingerprint = f"filters of Pillow {PIL.__version__}"

    def stylize(
        self, pictures: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Raise ModelError for an instruction that no filter follows."""
        return [_filter(words)(picture) for picture, words in zip(pictures, instructions, strict=True)]


def make_stylizer(settings: PlainSettings, device: str) -> PillowStylizer:
    """Return the stylizer as `models_config` makes models."""
    return PillowStylizer()


def _filter(instruction: str) -> Callable[[Image.Image], Image.Image]:
    if instruction not in FILTERS:
        raise ModelError(f"No filter follows {instruction!r}; there are: {', '.join(FILTERS)}.")
    return FILTERS[instruction]
