"""Pictures from and to disk: decoding with limits, always RGB, square fits, contact sheets, PNG text."""

from __future__ import annotations

import io
import json
import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import (
    ExifTags,
    Image,
    ImageCms,
    ImageDraw,
    ImageFont,
    ImageOps,
    PngImagePlugin,
    UnidentifiedImageError,
)

from jedi_diffusion.errors import PictureError, UsageError
from jedi_diffusion.files import files_in, is_mask, json_bytes, write_file

Fit = Literal["crop", "pad"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".hif"),
)
"""What names of picture files end in, in lower case."""
UNREAD_ENDINGS = (
    *(".jxl", ".jp2", ".j2k", ".svg", ".psd", ".xcf", ".tga", ".exr", ".ppm", ".pgm", ".pdf"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
)
"""Those of pictures in formats that are not read."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What a HEIC file says of itself at its bytes 8 to 12."""
MAX_PIXELS = 60_000_000
"""Largest picture that is decoded; phones make 12 to 50 megapixels."""
DECODE_SIZE = 2048
"""JPEGs are decoded at a reduced scale as long as both sides keep this many pixels."""
FULL_SCALE = MAX_PIXELS
"""As `decode_size`: no picture is decoded at a reduced scale."""
PARAMETERS_KEY = "jedi"
"""Keyword of the PNG text chunk that carries a picture's parameters."""
MAX_PARAMETERS = 2**20
"""Characters of parameters that are read; those of a picture take some 1000."""
PNG_START = b"\x89PNG\r\n\x1a\n"
"""What every PNG begins with."""
SOFTWARE_KEY = "Software"
"""PNG's own keyword for what made a picture."""
WHITE = (255, 255, 255)
PROFILED_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
"""Colour spaces of ICC profiles that are applied, and the Pillow mode that each is for."""
SAME_COLOURS = 2
"""Levels of 255: a profile that moves no colour by more is taken for sRGB, and left alone."""


def is_picture(file: Path) -> bool:
    """Return whether a file is a picture by its ending, and no mask of one."""
    return file.suffix.lower() in ENDINGS and not is_mask(file.name)


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files of a folder, masks apart, in natural order. Raises DataError."""
    return [each for each in files_in(folder) if is_picture(each)]


def open_picture(
    source: str | Path | bytes, name: str | None = None, decode_size: int = DECODE_SIZE
) -> Image.Image:
    """Return the picture in a file, or in the bytes of one, as upright RGB without metadata.

    Rotated as its EXIF says; colours in sRGB by its ICC profile; transparent parts on white; 16 bits scaled
    to 8; an animation's first frame.
    Large JPEGs come at a reduced scale, never below `decode_size` on either side. Nothing is decoded before
    format and pixel count are checked. Raises PictureError, which names the file (or `name`).
    """
    return _decode(source, name, decode_size, to_rgb)


def open_layer(source: str | Path | bytes, name: str | None = None) -> Image.Image:
    """As `open_picture`, but RGBA, so that transparent parts can be put on another background than white."""
    return _decode(source, name, DECODE_SIZE, lambda picture: _to_srgb(picture).convert("RGBA"))


def open_mask(source: str | Path | bytes, name: str | None = None) -> Image.Image:
    """Return a mask in 8 bits (L), 255 on the subject, from the forms that masks come in.

    Of a picture with a transparent ground, which background removers save, what is opaque is the subject. Two
    values, one of them 0, are 0 and 255, as in 0/1 masks. Colour profiles do not count. Raises PictureError.
    """
    return _decode(source, name, FULL_SCALE, to_mask)


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
        with _opened(source, name) as picture:
            check_pixels(picture.size, name)
            picture.draft(None, (decode_size, decode_size))
            picture.load()
            return convert(ImageOps.exif_transpose(picture))


def picture_size(source: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) of an encoded picture from its header alone.

    Raises PictureError that gives `name`.
    """
    with _explained(name), _opened(source, name) as picture:
        return picture.size


def upright_size(source: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) of an encoded picture as its EXIF turns it, from its headers alone. Raises
    PictureError that gives `name`."""
    with _explained(name), _opened(source, name) as picture:
        width, height = picture.size
        is_turned = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (height, width) if is_turned else (width, height)


def _opened(source: str | Path | bytes, name: str) -> Image.Image:
    """Return the picture of an accepted format, not decoded yet.

    Raises PictureError for HEIC that nothing reads.
    """
    formats = FORMATS if _reads_heif() else tuple(each for each in FORMATS if each != "HEIF")
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    except UnidentifiedImageError as error:
        if "HEIF" in formats or _start(source)[4:8] != b"ftyp" or _start(source)[8:12] not in HEIF_BRANDS:
            raise
        raise PictureError(
            f"{name} is a HEIC picture, which needs a package that is not here: pip install "
            "'jedi-diffusion[heic]'."
        ) from error


def _start(source: str | Path | bytes) -> bytes:
    """Return a file's first 12 bytes."""
    if isinstance(source, bytes):
        return source[:12]
    with open(source, "rb") as file:
        return file.read(12)


@lru_cache
def _reads_heif() -> bool:
    """Return whether Pillow reads HEIC, by a package that is optional."""
    try:
        from pi_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def check_pixels(size: tuple[int, int], name: str) -> None:
    """Raise PictureError if a picture of this (width, height) is too large to be decoded."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{name} has {width}x{height} pixels, more than the {MAX_PIXELS // 10**6} megapixels that are "
            "accepted; make it smaller."
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever a decoder throws into a PictureError that names the file."""
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
    """Return any Pillow picture as sRGB without metadata: alpha on white, the high 8 of 16 bits, as PNG
    decoders do.

    Raises PictureError for floating-point and 32-bit pixels, which have no set range.
    """
    picture = _to_srgb(picture)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        rgb = Image.new("RGBA", layer.size, (*WHITE, 255))
        rgb.alpha_composite(layer)
        picture = rgb
    picture = picture.convert("RGB") if picture.mode != "RGB" else picture.copy()
    picture.info = {}
    return picture


def _to_srgb(picture: Image.Image) -> Image.Image:
    """Return the picture in 8 bits with its colours converted by its ICC profile: phones save Display P3,
    cameras Adobe RGB, and editors linear light.

    Without a profile, or with one that cannot be read or is for other colours, it is taken as it is. Raises
    PictureError for pixels without a set range.
    """
    profile = picture.info.get("icc_profile")
    alpha = _alpha_of(picture)
    if picture.mode.startswith("I"):
        gray = _checked_16_bit(picture)
        picture = _converted(gray, profile) if profile else gray
        if picture is gray:
            picture = Image.fromarray((np.asarray(gray) >> 8).astype(np.uint8))
    elif picture.mode == "F":
        raise PictureError("floating-point pixels have no set range, save them with 8 or 16 bits")
    else:
        if picture.mode not in ("L", "RGB", "CMYK"):
            picture = picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB")
        if profile:
            picture = _converted(picture, profile)
    if alpha is not None:
        picture = picture.convert("RGB")
        picture.putalpha(alpha)
    return picture


def _alpha_of(picture: Image.Image) -> Image.Image | None:
    """Return how opaque each pixel is (L), None where all are."""
    if not picture.has_transparency_data:
        return None
    if picture.mode.startswith("I"):
        # One 16-bit gray is the transparent one: it must be told apart before eight bits are dropped.
        transparent = np.asarray(picture) == picture.info["transparency"]
        return Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8))
    return picture.convert("RGBA").getchannel("A")


def _checked_16_bit(picture: Image.Image) -> Image.Image:
    """Return the picture as I;16. Raises PictureError for values beyond."""
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise PictureError("32-bit pixels have no set range, save them with 8 or 16 bits")
    return Image.fromarray(values.astype(np.uint16))


def _converted(picture: Image.Image, profile: bytes) -> Image.Image:
    """Return the picture (L, I;16, RGB, CMYK) as RGB in sRGB; the picture itself where its profile is sRGB
    already or cannot be used.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = PROFILED_MODES.get(source.profile.xcolor_space.strip())
        if mode == "RGB" and picture.mode == "L":
            picture = picture.convert("RGB")
        if mode != {"I;16": "L"}.get(picture.mode, picture.mode):
            return picture
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), picture.mode, "RGB", ImageCms.Intent.PERCEPTUAL
        )
        return picture if _is_identity(transform, picture.mode) else transform.apply(picture)
    except (ImageCms.PyCMSError, OSError):
        return picture


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether colours stay as they are, up to rounding.

    A name says nothing: "sRGB-elle-V2-g10" is linear.
    """
    if mode == "RGB":
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        tried = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))
    elif mode == "L":
        tried = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    else:
        return False
    made, same = (np.asarray(each, int) for each in (transform.apply(tried), tried.convert("RGB")))
    return bool(abs(made - same).max() <= SAME_COLOURS)


def to_mask(picture: Image.Image) -> Image.Image:
    """Return a picture as a mask, as `open_mask` says."""
    if picture.mode.startswith("I"):
        values = np.asarray(_checked_16_bit(picture))
        return _spread(values, (values >> 8).astype(np.uint8))
    alpha = _alpha_of(picture)
    gray = np.asarray(picture.convert("RGB").convert("L"))
    if alpha is None or alpha.getextrema() == (255, 255):
        return _spread(gray, gray)
    opaque = np.asarray(alpha)
    inner = gray[opaque >= 128]
    dark, light = inner < 16, inner >= 240
    # Black and white alone are a mask whose border happens to be clear; all else is a subject cut out.
    drawn = (dark | light).all() and dark.any() and light.any()
    shown = np.minimum(opaque, gray) if drawn else opaque
    return _spread(shown, shown)


def _spread(values: NDArray[np.uint8], gray: NDArray[np.uint8]) -> Image.Image:
    """0 and 255 where there are but two values, one of them 0; else the gray."""
    top = values.max()
    two = top > 0 and bool(((values == 0) | (values == top)).all())
    return Image.fromarray(np.where(values > 0, 255, 0).astype(np.uint8) if two else gray)


def within_pixels(picture: Image.Image, most: int) -> Image.Image:
    """Return a picture of at most so many pixels: itself, or made smaller in its own shape."""
    width, height = picture.size
    if width * height <= most:
        return picture
    scale = math.sqrt(most / (width * height))
    size = max(1, int(width * scale)), max(1, int(height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)


def fit_square(picture: Image.Image, size: int, fit: Fit = "crop") -> Image.Image:
    """Return the picture as `size` x `size` RGB, undistorted: its centre (crop), or all of it on
    white (pad).
    """
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
    """Return one RGB picture of labelled pictures in rows; None leaves a cell empty.

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


def wrap(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float, lines: int = 3
) -> list[str]:
    """Return `text` in lines of at most `width` pixels, broken between words if possible, cut with an
    ellipsis.
    """
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


def save_png(path: str | Path, picture: Image.Image, parameters: Mapping[str, object] | None = None) -> None:
    """Write a PNG in one step (see `write_file`), with `parameters` as in `png_bytes`.

    Raises OutputError with the path and the reason.
    """
    write_file(path, png_bytes(picture, parameters))


def png_bytes(
    picture: Image.Image, parameters: Mapping[str, object] | None = None, software: str | None = None
) -> bytes:
    """Return the picture as PNG, with `parameters` as JSON and the name of the `software` in text chunks."""
    text = PngImagePlugin.PngInfo()
    if software is not None:
        text.add_itxt(SOFTWARE_KEY, software)
    if parameters is not None:
        text.add_itxt(PARAMETERS_KEY, json_bytes(parameters).decode())
    data = io.BytesIO()
    picture.save(data, format="PNG", pnginfo=text)
    return data.getvalue()


def lossy_bytes(picture: Image.Image, kind: Literal["jpeg", "webp"], quality: int, software: str) -> bytes:
    """Return the picture as JPEG or WebP of a quality from 0 to 100, with the name of the `software` in its
    EXIF.
    """
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = software
    data = io.BytesIO()
    # Pillow takes a JPEG's quality 0 for its default.
    options = {"quality": max(1, quality), "subsampling": 0} if kind == "jpeg" else {"quality": quality}
    picture.save(data, format=kind.upper(), exif=exif, **options)
    return data.getvalue()


def read_parameters(path: str | Path, name: str | None = None) -> dict[str, Any] | None:
    """Return the parameters that `save_png` put into a PNG, None where there are none.

    Raises PictureError, which names the file (or `name`).
    """
    name = name or str(path)
    with _explained(name), Image.open(path, formats=("PNG",)) as picture:
        text = picture.info.get(PARAMETERS_KEY)
        if text is None:
            return None
        if len(text) > MAX_PARAMETERS:
            raise PictureError(
                f"{name} has parameters of {len(text)} characters, more than {MAX_PARAMETERS}."
            )
        return dict(json.loads(text))
