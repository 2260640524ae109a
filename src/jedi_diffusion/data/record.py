"""One set as it is stored, in the paper's format: all pictures stacked in one, their captions in one text.

Section 6 ("Data loading") and Figure 10: pictures are square and vertically concatenated, captions are
separated by a special token, and the set size is the picture's height divided by its width.
Letters: N pictures in a set.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from jedi_diffusion.errors import DataError, UsageError
from jedi_diffusion.files import MASK_ENDING, decode_text, json_bytes
from jedi_diffusion.pictures import (
    FORMATS,
    FULL_SCALE,
    MAX_PIXELS,
    check_pixels,
    open_mask,
    open_picture,
    picture_size,
)
from jedi_diffusion.sets import ImageSet

SEPARATOR = "<|split|>"
"""Separates the captions of a set (section 6), so no caption may hold it."""


def join_captions(captions: Sequence[str]) -> str:
    """Return the captions as one text. Raises UsageError if one of them holds the separator itself."""
    for caption in captions:
        if SEPARATOR in caption:
            raise UsageError(f"The caption {caption!r} holds {SEPARATOR}, which separates captions.")
    return SEPARATOR.join(captions)


def split_captions(text: str) -> tuple[str, ...]:
    """Return the captions of a text, without the white space around each."""
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
    """Raise DataError unless there is one caption for each of `size` pictures."""
    if len(captions) != size:
        raise DataError(
            f"{name} holds {size} pictures but {len(captions)} captions (separated by {SEPARATOR}); "
            "there must be one each."
        )


def unstack(picture: Image.Image, name: str) -> tuple[Image.Image, ...]:
    """Return the square pictures of a stacked one, from the top. Raises DataError, which gives `name`."""
    side = picture.width
    return tuple(
        picture.crop((0, number * side, side, (number + 1) * side))
        for number in range(set_size(*picture.size, name))
    )


KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
"""Endings of stored pictures, and Pillow's name for each."""
LARGEST_SIDE = {"jpg": 65_500, "png": 1_000_000, "webp": 16_383}
"""Pixels that a side can have in each format."""
JPEG_BLOCK = 8
"""Pixels of the side of the blocks that a JPEG without subsampled chroma quantizes each by itself."""
MASKS = MASK_ENDING.removeprefix(".")


def largest_set(side: int, kind: str) -> int:
    """Return how many pictures of `side` x `side` pixels one file of a kind can hold."""
    return min(MAX_PIXELS // side**2, LARGEST_SIDE[kind] // side)


def check_blocks(side: int, kind: str) -> None:
    """Raise UsageError where two stacked pictures would share blocks of the format, and so bleed."""
    if kind == "jpg" and side % JPEG_BLOCK:
        lower = side - side % JPEG_BLOCK
        raise UsageError(
            f"Pictures of {side} pixels cannot be stacked in a jpg, whose blocks of {JPEG_BLOCK} pixels two "
            f"of them would share: take {lower or JPEG_BLOCK} or {lower + JPEG_BLOCK} pixels, or png."
        )


@dataclass(frozen=True)
class StoredSet:
    """A set in the paper's format, encoded: `stacked` holds N pictures, `masks` (PNG) as many, or None.

    kind is one of KINDS; key names the set in its shard.
    """

    key: str
    kind: str
    stacked: bytes
    captions: tuple[str, ...]
    subject: str = ""
    source: str = ""
    masks: bytes | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def encode(cls, key: str, given: ImageSet, kind: str = "jpg", quality: int = 95) -> StoredSet:
        """Store square pictures of one size as `kind`; jpg with `quality` 1 to 100, the others without loss.

        Raises UsageError for pictures that cannot be stacked, would share blocks of a jpg, or are too many
        for the format.
        """
        if kind not in KINDS:
            raise UsageError(f"Pictures are stored as {', '.join(KINDS)}, not as {kind!r}.")
        picture = stack(given.pictures)
        check_blocks(picture.width, kind)
        if picture.height > LARGEST_SIDE[kind]:
            raise UsageError(
                f"{len(given)} pictures of {picture.width} pixels are {picture.height} pixels high, more "
                f"than the {LARGEST_SIDE[kind]} that {kind} can hold: take smaller or fewer pictures, or png."
            )
        check_pixels(picture.size, f"The set {key}")
        masks = None if given.masks is None else _encoded(stack(given.masks), "PNG")
        # Blocks of subsampled chroma are 16 pixels high and would bleed across the edges of pictures, and
        # lossy WebP has no other.
        settings: dict[str, dict[str, Any]] = {
            "jpg": {"quality": quality, "subsampling": 0},
            "png": {},
            "webp": {"lossless": True},
        }
        stacked = _encoded(picture, KINDS[kind], **settings[kind])
        join_captions(given.captions)
        return cls(key, kind, stacked, given.captions, given.subject, given.source, masks, given.info)

    def members(self) -> dict[str, bytes]:
        """Return the set as files of a shard, by ending: the picture, txt, json, and mask.png where it has
        masks.
        """
        record = {
            "source": self.source,
            "subject": self.subject,
            "masks": None if self.masks is None else f"{self.key}.{MASKS}",
            "provenance": self.info,
        }
        files = {
            self.kind: self.stacked,
            "txt": join_captions(self.captions).encode(),
            "json": json_bytes(record),
        }
        return files if self.masks is None else {**files, MASKS: self.masks}

    @classmethod
    def from_members(cls, key: str, members: Mapping[str, bytes], name: str) -> StoredSet:
        """Return the set of these files. Raises DataError, which gives `name`: a file is missing, captions
        and pictures disagree, or the record is no JSON.
        """
        kind, stacked = picture_of(members, name)
        captions = split_captions(text_of(members, name))
        check_captions(set_size(*picture_size(stacked, name), name), captions, name)
        record = json_of(members, name)
        info = record.get("provenance") or {}
        if not isinstance(info, dict):
            raise DataError(f"The provenance of {name} is not a JSON object.")
        masks = members.get(MASKS)
        if record.get("masks") and masks is None:
            raise DataError(f"{name} should have masks ({record['masks']}), but they are missing.")
        return cls(
            key=key,
            kind=kind,
            stacked=stacked,
            captions=captions,
            subject=str(record.get("subject", "")),
            source=str(record.get("source", "")),
            masks=masks,
            info=info,
        )

    def decode(self, name: str, chosen: Sequence[int] | None = None) -> ImageSet:
        """Return the set, or its pictures with the numbers `chosen`. Raises PictureError and DataError."""
        # No reduced scale: it could round the height so that it is no multiple of the width any more.
        pictures = unstack(open_picture(self.stacked, name, decode_size=FULL_SCALE), name)
        check_captions(len(pictures), self.captions, name)
        masks = None
        if self.masks is not None:
            masks = unstack(open_mask(self.masks, f"{name} (masks)"), f"{name} (masks)")
            if len(masks) != len(pictures):
                raise DataError(f"{name} holds {len(pictures)} pictures but {len(masks)} masks.")
        numbers = range(len(pictures)) if chosen is None else chosen
        return ImageSet(
            pictures=tuple(pictures[number] for number in numbers),
            captions=tuple(self.captions[number] for number in numbers),
            subject=self.subject,
            source=self.source,
            masks=None if masks is None else tuple(masks[number] for number in numbers),
            info=self.info,
        )


def picture_of(members: Mapping[str, bytes], name: str) -> tuple[str, bytes]:
    """Return (ending as in KINDS, bytes) of a sample's picture.

    Raises DataError if there is not exactly one.
    """
    endings = {"jpeg": "jpg", **{kind: kind for kind in KINDS}}
    found = [(endings[ending], data) for ending, data in members.items() if ending in endings]
    if len(found) != 1:
        raise DataError(f"{name} has {len(found)} pictures (jpg, png, webp); there must be one.")
    return found[0]


def text_of(members: Mapping[str, bytes], name: str) -> str:
    """Return a sample's captions. Raises DataError if they are missing or not UTF-8."""
    if "txt" not in members:
        raise DataError(f"{name} has no captions (txt).")
    return decode_text(members["txt"], f"The text of {name}")


def json_of(members: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """Return a sample's record; {} if it has none. Raises DataError if it is no JSON object."""
    try:
        record = json.loads(members.get("json", b"{}"))
    except ValueError as error:
        raise DataError(f"The record of {name} is not JSON: {error}.") from error
    if not isinstance(record, dict):
        raise DataError(f"The record of {name} is not a JSON object.")
    return record


def _encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    assert kind in FORMATS
    data = io.BytesIO()
    picture.save(data, format=kind, **settings)
    return data.getvalue()
