"""Pictures from and to disk: decoding with limits, always RGB, square fits, contact sheets, PNG text."""

from __future__ import annotations

import io
import json
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError

from jedi_diffusion.errors import PictureError, UsageError
from jedi_diffusion.files import write_file

Fit = Literal["crop", "pad"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""What names of picture files end in, in lower case."""
MAX_PIXELS = 50_000_000
"""Largest picture that is decoded; phones make 12 to 48 megapixels."""
DECODE_SIZE = 2048
"""JPEGs are decoded at a reduced scale as long as both sides keep this many pixels."""
PARAMETERS_KEY = "jedi"
"""Keyword of the PNG text chunk that carries a picture's parameters."""
SOFTWARE_KEY = "Software"
"""PNG's own keyword for what made a picture."""
WHITE = (255, 255, 255)
PROFILED_MODES: dict[str, Literal["RGB", "RGBA"]] = {"L": "RGB", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}
"""Pillow modes whose ICC profile is applied, and the mode after it."""


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder by their endings, in order of names."""
    files = (each for each in folder.iterdir() if each.suffix.lower() in ENDINGS and each.is_file())
    return sorted(files, key=lambda each: each.name)


def open_picture(
    source: str | Path | bytes, name: str | None = None, decode_size: int = DECODE_SIZE
) -> Image.Image:
    """The picture in a file, or in the bytes of one, as upright RGB without metadata.

    Rotated as its EXIF says; colours in sRGB by its ICC profile; transparent parts on white; 16 bits scaled
    to 8; an animation's first frame.
    Large JPEGs come at a reduced scale, never below `decode_size` on either side. Nothing is decoded before
    format and pixel count are checked. Raises PictureError, which names the file (or `name`).
    """
    return _decode(source, name, decode_size, to_rgb)


def open_layer(source: str | Path | bytes, name: str | None = None) -> Image.Image:
    """As `open_picture`, but RGBA, so that transparent parts can be put on another background than white."""
    return _decode(source, name, DECODE_SIZE, lambda picture: _to_srgb(picture).convert("RGBA"))


def _decode(
    source: str | Path | bytes,
    name: str | None,
    decode_size: int,
    convert: Callable[[Image.Image], Image.Image],
) -> Image.Image:
    name = name or ("The uploaded picture" if isinstance(source, bytes) else str(source))
    with _explained(name):
        if not isinstance(source, bytes):
            if not Path(source).is_file():
                raise PictureError(f"{name} is not a file.")
            if Path(source).stat().st_size == 0:
                raise PictureError(f"{name} is empty.")
        with Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS
        ) as picture:
            check_pixels(picture.size, name)
            picture.draft(None, (decode_size, decode_size))
            picture.load()
            return convert(ImageOps.exif_transpose(picture))


def picture_size(source: bytes, name: str) -> tuple[int, int]:
    """(width, height) of an encoded picture from its header alone. Raises PictureError that gives `name`."""
    with _explained(name), Image.open(io.BytesIO(source), formats=FORMATS) as picture:
        return picture.size


def check_pixels(size: tuple[int, int], name: str) -> None:
    """Raises PictureError if a picture of this (width, height) is too large to be decoded."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{name} has {width}x{height} pixels, more than the {MAX_PIXELS // 10**6} megapixels that are "
            "accepted; make it smaller."
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns whatever a decoder throws into a PictureError that names the file."""
    allowed = ", ".join(FORMATS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken metadata is no reason to refuse a good picture
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = MAX_PIXELS // 10**6
        raise PictureError(f"{name} has more than the {limit} megapixels that are accepted.") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a picture in one of the accepted formats ({allowed}).") from error
    except MemoryError as error:
        raise PictureError(f"{name} needs more memory to decode than there is.") from error
    # Decoders of damaged files raise nearly anything: OSError, ValueError, SyntaxError, struct.error...
    except Exception as error:
        if isinstance(error, PictureError) and name in str(error):
            raise
        raise PictureError(f"{name} cannot be read: {error}.") from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow picture as sRGB without metadata: alpha on white, the high 8 of 16 bits, as PNG decoders do.

    Raises PictureError for floating-point and 32-bit pixels, which have no set range.
    """
    picture = _to_srgb(picture)
    if picture.mode.startswith("I"):
        picture = _from_16_bit(picture)
    elif picture.mode == "F":
        raise PictureError("floating-point pixels have no set range, save them with 8 or 16 bits")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        rgb = Image.new("RGBA", layer.size, (*WHITE, 255))
        rgb.alpha_composite(layer)
        picture = rgb
    picture = picture.convert("RGB") if picture.mode != "RGB" else picture.copy()
    picture.info = {}
    return picture


def _to_srgb(picture: Image.Image) -> Image.Image:
    """The picture with its colours converted by its ICC profile: phones save Display P3, cameras Adobe RGB.

    Without a profile, or with one that cannot be read or used, it is taken as it is.
    """
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in PROFILED_MODES:
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return picture
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(
            picture, source, target, outputMode=PROFILED_MODES[picture.mode]
        )
    except (ImageCms.PyCMSError, OSError):
        return picture
    return picture if converted is None else converted


def _from_16_bit(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise PictureError("32-bit pixels have no set range, save them with 8 or 16 bits")
    gray = Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))
    transparent = picture.info.get("transparency")
    if transparent is None:
        return gray
    # One 16-bit gray is the transparent one: it must be told apart before eight bits are dropped.
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (gray, Image.fromarray(alpha)))


def fit_square(picture: Image.Image, size: int, fit: Fit = "crop") -> Image.Image:
    """The picture as `size` x `size` RGB, undistorted: its centre (crop), or all of it on white (pad)."""
    if fit not in ("crop", "pad"):
        raise UsageError(f"A picture is fitted by crop or pad, not by {fit!r}.")
    picture = to_rgb(picture)
    if fit == "crop":
        return ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    square = Image.new("RGB", (size, size), WHITE)
    smaller = picture.resize((width, height), Image.Resampling.LANCZOS)
    square.paste(smaller, ((size - width) // 2, (size - height) // 2))
    return square


def contact_sheet(
    rows: Sequence[Sequence[tuple[Image.Image, str] | None]], cell: int = 256, title: str = ""
) -> Image.Image:
    """One RGB picture of labelled pictures in rows; None leaves a cell empty.

    Pictures are scaled to fit `cell` pixels, small ones by whole steps so that their pixels stay crisp.
    Labels wrap below, three lines at most. Raises UsageError when there is nothing to show.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise UsageError("A contact sheet needs at least one picture.")
    points = max(11, cell // 15)
    font = ImageFont.load_default(size=points)
    gap, line = max(6, cell // 24), round(points * 1.3)
    heads = wrap(title, font, columns * (cell + gap) - gap) if title else []
    labels = [[wrap(item[1], font, cell) if item else [] for item in row] for row in rows]
    depths = [cell + line * max((len(lines) for lines in row), default=0) + gap for row in labels]
    top = gap + (line * len(heads) + gap if heads else 0)
    sheet = Image.new("RGB", (gap + columns * (cell + gap), top + sum(depths) + gap), WHITE)
    draw = ImageDraw.Draw(sheet)
    for number, text in enumerate(heads):
        draw.text((gap, gap + number * line), text, fill="black", font=font)
    for row, texts, depth in zip(rows, labels, depths, strict=True):
        for column, (item, lines) in enumerate(zip(row, texts, strict=True)):
            left = gap + column * (cell + gap)
            if item:
                shown = _scaled(item[0], cell)
                sheet.paste(shown, (left + (cell - shown.width) // 2, top + (cell - shown.height) // 2))
            for number, text in enumerate(lines):
                draw.text((left, top + cell + 2 + number * line), text, fill="black", font=font)
        top += depth
    return sheet


def _scaled(picture: Image.Image, cell: int) -> Image.Image:
    picture = to_rgb(picture)
    steps = cell // max(picture.size)
    if steps >= 1:
        return picture.resize((picture.width * steps, picture.height * steps), Image.Resampling.NEAREST)
    return ImageOps.contain(picture, (cell, cell), Image.Resampling.LANCZOS)


def wrap(text: str, font: Any, width: float, lines: int = 3) -> list[str]:
    """`text` in lines of at most `width` pixels, broken between words if possible, cut with an ellipsis."""
    done: list[str] = []
    rest = " ".join(text.split())[:1000]
    while rest and len(done) < lines:
        lengths = range(1, len(rest) + 1)
        end = max(1, bisect_right(lengths, width, key=lambda letters: font.getlength(rest[:letters])))
        if end < len(rest):
            space = rest.rfind(" ", 0, end + 1)
            end = space if space > 0 else end
        done.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    if rest:
        last = done[-1]
        while last and font.getlength(f"{last}…") > width:
            last = last[:-1]
        done[-1] = f"{last}…"
    return done


def save_png(path: str | Path, picture: Image.Image, parameters: dict[str, Any] | None = None) -> None:
    """Write a PNG in one step (see `write_file`), with `parameters` as in `png_bytes`.

    Raises OutputError with the path and the reason.
    """
    write_file(path, png_bytes(picture, parameters))


def png_bytes(
    picture: Image.Image, parameters: dict[str, Any] | None = None, software: str | None = None
) -> bytes:
    """The picture as PNG, with `parameters` as JSON and the name of the `software` in text chunks."""
    text = PngImagePlugin.PngInfo()
    if software is not None:
        text.add_itxt(SOFTWARE_KEY, software)
    if parameters is not None:
        text.add_itxt(PARAMETERS_KEY, json.dumps(parameters, ensure_ascii=False))
    data = io.BytesIO()
    picture.save(data, format="PNG", pnginfo=text)
    return data.getvalue()


def read_parameters(path: str | Path) -> dict[str, Any] | None:
    """The parameters that `save_png` put into a PNG, None where there are none. Raises PictureError."""
    with _explained(str(path)), Image.open(path, formats=("PNG",)) as picture:
        text = picture.info.get(PARAMETERS_KEY)
        return None if text is None else json.loads(text)
