"""From an HTTP body to fields and photos, with limits that hold before anything is decoded."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

import anyio
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from jedi_diffusion.app.fetch import Fetcher
from jedi_diffusion.app.fields import FieldError, Fields, check_supported, fitted
from jedi_diffusion.errors import JeDiError, PictureError
from jedi_diffusion.options import MAX_REFERENCES
from jedi_diffusion.pictures import open_picture, within_pixels
from jedi_diffusion.references import OwnShape, Reference, open_mask_of

MAX_PHOTO = 25 * 2**20
"""Bytes of one photo."""
MAX_BODY = 200 * 2**20
"""Bytes of a request with photos."""
MAX_JSON = 2**20
"""Bytes of a request without."""
MAX_PIXELS = 2048**2
"""Of photos that wait for a model that reads them in their own shape; larger ones are made smaller."""
MAX_TOOLS = 32 * 2**20
"""Bytes of a request for a tool, whose photos are base64."""
MAX_FIELD = 64 * 2**10
"""Bytes of one field of a form; the longest prompt fits."""
PHOTOS = ("image", "image[]")
MASKS = ("reference_mask", "reference_mask[]")
REPEATED = ("reference_prompt", "reference_strength")
"""Fields that may be given once for each reference, also with brackets."""
FETCHES = 8
"""Photos fetched at the same time, where addresses are allowed."""
LOOKUP = 1.0
"""Seconds beyond a fetch's own deadline after which it is given up from outside."""
PLAIN_NAME = re.compile(r";\s*filename\s*=", re.IGNORECASE)
EXTENDED_NAME = re.compile(r";\s*filename\*\s*=\s*\"?utf-8'[^']*'([^;\"]*)\"?", re.IGNORECASE)
DECODERS = 2
"""Photos decoded at the same time: each may need 150 MB for a moment."""


class TooLargeError(PictureError):
    """A photo or a body has more bytes than are accepted."""


class NoRoomError(JeDiError):
    """So many uploads are on their way or wait to be read that there is no room for another."""


class MediaTypeError(PictureError):
    """The body is of a kind that this address does not read."""


async def read_json(request: Request) -> dict[str, Any]:
    """Return the fields of a JSON body. Raises FieldError, MediaTypeError."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise MediaTypeError(f"The body must be application/json, not {kind[:80] or 'nothing'}.")
    try:
        values = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise FieldError("The body is not valid JSON.") from error
    if not isinstance(values, dict):
        raise FieldError("The body must be a JSON object.")
    return values


class Form(NamedTuple):
    """What a form holds: fields; photos, which are files, or texts that may be addresses; masks of them."""

    values: dict[str, Any]
    photos: list[UploadFile | str]
    masks: list[UploadFile]


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[Form]:
    """Yield the fields of a form, and its photos and masks.

    The files are gone afterwards. Raises FieldError, MediaTypeError.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise MediaTypeError(f"The body must be multipart/form-data, not {kind[:80] or 'nothing'}.")
    limits = {"max_files": 8 * MAX_REFERENCES, "max_fields": 128, "max_part_size": MAX_FIELD}
    if kind == "multipart/form-data":
        try:
            async with aclosing(request.stream()) as stream:
                form = await PartsParser(request.headers, stream, **limits).parse()
        except MultiPartException as error:
            raise FieldError(f"The form cannot be read: {error.message.rstrip('.')}.") from error
    else:
        form = await request.form(max_fields=limits["max_fields"], max_part_size=MAX_FIELD)
    try:
        yield _sorted(form)
    finally:
        await form.close()
        request.state.let_go()


class PartsParser(MultiPartParser):
    """Takes for a file what older and simpler clients send without a plain file name: a part with a name in
    the form of RFC 5987 only, or with a picture's content type and no name."""

    def on_headers_finished(self) -> None:
        part = self._current_part
        disposition = (part.content_disposition or b"").decode("latin-1")
        kinds = [value for name, value in part.item_headers if name == b"content-type"]
        is_picture = bool(kinds) and kinds[0].lower().startswith((b"image/", b"application/octet-stream"))
        if not PLAIN_NAME.search(disposition):
            extended = EXTENDED_NAME.search(disposition)
            if extended or is_picture:
                name = unquote(extended[1]) if extended else ""
                safe = "".join(letter for letter in name if letter.isprintable() and letter not in '"\\')
                rest = EXTENDED_NAME.sub("", disposition).encode("latin-1")
                part.content_disposition = rest + f'; filename="{safe}"'.encode()
        super().on_headers_finished()


def _sorted(form: FormData) -> Form:
    values: dict[str, Any] = {}
    photos: list[UploadFile | str] = []
    masks: list[UploadFile] = []
    for name, value in form.multi_items():
        if name in PHOTOS:
            photos.append(value)
        elif name in MASKS:
            if isinstance(value, str):
                raise FieldError("reference_mask must be a file.", "reference_mask")
            masks.append(value)
        elif not isinstance(value, str):
            check_supported(name)
            if name in Fields.model_fields:
                raise FieldError(f"The field {name[:100]} is a file, but must be text.", name[:100])
            raise FieldError(
                f"Files in the field {name[:100]} are not supported here; photos go into image or image[].",
                name[:100],
            )
        elif name.removesuffix("[]") in REPEATED:
            values.setdefault(name.removesuffix("[]"), []).append(value)
        elif name in values:
            raise FieldError(f"The field {name[:100]} is given twice.", name[:100])
        else:
            values[name] = value
    return Form(values, photos, masks)


class PhotoReader:
    """Decodes photos, few at a time, and brings them to the pictures' size, or to at most MAX_PIXELS in their
    own shape."""

    def __init__(self, fetcher: Fetcher | None = None) -> None:
        self._fetcher = fetcher
        self._limiter = anyio.CapacityLimiter(DECODERS)
        self._fetching = anyio.CapacityLimiter(FETCHES)

    async def read(
        self,
        photos: list[UploadFile | str],
        width: int,
        height: int,
        masks: list[UploadFile] | None = None,
        own_shape: OwnShape | None = None,
    ) -> list[Image.Image | Reference]:
        """Return upright RGB references of width x height, or in their own shape where the model reads that,
        with masks of their size. Raises PictureError that names the file, FieldError."""

        def fit(picture: Image.Image) -> Image.Image:
            return fitted(picture, width, height) if own_shape is None else within_pixels(picture, MAX_PIXELS)

        def decode(data: bytes, name: str, drawn: bytes, mask_name: str) -> Image.Image | Reference:
            picture = open_picture(data, name)
            if own_shape is not None:
                own_shape.check(picture.size, name)
            if not drawn:
                return fit(picture)
            mask = open_mask_of(data, name, drawn, mask_name)
            if own_shape is not None:  # large photos are decoded at a reduced scale
                return Reference(fit(picture), mask=mask.resize(fit(picture).size, Image.Resampling.BOX))
            kept = fit(mask)
            if kept.getextrema()[1] == 0:
                raise PictureError(
                    f"{name} is cut to its centre, where its mask {mask_name} shows nothing: cut both to the "
                    "subject."
                )
            return Reference(fit(picture), mask=kept)

        given: list[UploadFile | None] = [*masks] if masks else [None] * len(photos)
        both = zip(photos, given, strict=True)
        return [await self._read(*pair, number, decode) for number, pair in enumerate(both, 1)]

    async def _read(
        self,
        photo: UploadFile | str,
        mask: UploadFile | None,
        number: int,
        decode: Callable[[bytes, str, bytes, str], Image.Image | Reference],
    ) -> Image.Image | Reference:
        """Return what `decode` makes of a photo and its mask, bytes and name of each, off the event loop."""
        mask_name = "" if mask is None else shown_name(mask.filename, number, "mask")
        drawn = b"" if mask is None else await self._bytes(mask, mask_name)
        if isinstance(photo, str):
            address, fetcher = photo, self._fetcher
            if fetcher is None:
                raise FieldError(
                    "image must be a file: this server takes no address, path or data URL for a picture.",
                    "image",
                )
            data, name = await self._fetch(fetcher, address), address[:200]
        else:
            name = shown_name(photo.filename, number)
            data = await self._bytes(photo, name)
        return await anyio.to_thread.run_sync(decode, data, name, drawn, mask_name, limiter=self._limiter)

    async def _bytes(self, file: UploadFile, name: str) -> bytes:
        """Return what is in a file. Raises PictureError, TooLargeError."""
        if (file.size or 0) > MAX_PHOTO:
            raise TooLargeError(f"{name} has {file.size} bytes; at most {MAX_PHOTO} are accepted.")
        if not file.size:
            raise PictureError(f"{name} is empty.")
        return await file.read()

    async def _fetch(self, fetcher: Fetcher, address: str) -> bytes:
        """Off the decoders' threads, so that ordinary uploads go on whatever a slow machine does."""
        try:
            with anyio.fail_after(fetcher.seconds + LOOKUP):  # a name server that is silent heeds no deadline
                return await anyio.to_thread.run_sync(
                    fetcher.fetch, address, limiter=self._fetching, abandon_on_cancel=True
                )
        except TimeoutError:
            raise fetcher.too_slow(address) from None


def shown_name(name: str | None, number: int, kind: str = "image") -> str:
    """Return an upload's name as messages show it, without folders and odd characters; it is never a path."""
    last = PurePosixPath((name or "").replace("\\", "/")).name.strip(".")
    return "".join(letter for letter in last if letter.isprintable())[:80] or f"{kind} {number}"
