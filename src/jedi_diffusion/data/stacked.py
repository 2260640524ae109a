"""The paper's set format: all pictures of a set stacked in one picture, their captions in one text.

Section 6 ("Data loading") and Figure 10: pictures are square and vertically concatenated, captions are
separated by a special token, and the set size is the picture's height divided by its width.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from jedi_diffusion.errors import DataError, UsageError

SEPARATOR = "<|split|>"
"""Separates the captions of a set (section 6), so no caption may hold it."""


def join_captions(captions: Sequence[str]) -> str:
    """The captions as one text. Raises UsageError if one of them holds the separator itself."""
    for caption in captions:
        if SEPARATOR in caption:
            raise UsageError(f"The caption {caption!r} holds {SEPARATOR}, which separates captions.")
    return SEPARATOR.join(captions)


def split_captions(text: str) -> tuple[str, ...]:
    """The captions of a text, without the white space around each."""
    return tuple(caption.strip() for caption in text.split(SEPARATOR))


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """N square pictures of one size and mode as one picture, N times as high as it is wide.

    Raises UsageError if there are none, or they differ in size or mode, or are not square.
    """
    if not pictures:
        raise UsageError("A set needs at least one picture.")
    first = pictures[0]
    for number, picture in enumerate(pictures):
        if picture.size != (first.width, first.width) or picture.mode != first.mode:
            raise UsageError(
                f"Pictures of a stacked set are square and alike; number {number} is {picture.width}x"
                f"{picture.height} {picture.mode} in a set that begins with {first.width} {first.mode}."
            )
    stacked = Image.new(first.mode, (first.width, first.width * len(pictures)))
    for number, picture in enumerate(pictures):
        stacked.paste(picture, (0, number * first.width))
    return stacked


def set_size(width: int, height: int, name: str) -> int:
    """N = height / width (section 6). Raises DataError where that is no whole number."""
    if width < 1 or height < width or height % width:
        raise DataError(
            f"{name} is {width}x{height} pixels, but the height of a stacked set is a multiple of its width."
        )
    return height // width


def check_captions(size: int, captions: Sequence[str], name: str) -> None:
    """Raises DataError unless there is one caption for each of `size` pictures."""
    if len(captions) != size:
        raise DataError(
            f"{name} holds {size} pictures but {len(captions)} captions (separated by {SEPARATOR}); "
            "there must be one each."
        )


def unstack(picture: Image.Image, name: str) -> tuple[Image.Image, ...]:
    """The square pictures of a stacked one, from the top. Raises DataError, which gives `name`."""
    side = picture.width
    return tuple(
        picture.crop((0, number * side, side, (number + 1) * side))
        for number in range(set_size(*picture.size, name))
    )
