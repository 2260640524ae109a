"""From an HTTP body to fields and photos, with limits that hold before anything is decoded."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import PurePosixPath
from typing import Any
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
from jedi_diffusion.pictures import open_picture

MAX_PHOTO = 25 * 2**20
"""Bytes of one photo."""
MAX_BODY = 200 * 2**20
"""Bytes of a request with photos."""
MAX_JSON = 2**20
"""Bytes of a request without."""
MAX_FIELD = 64 * 2**10
"""Bytes of one field of a form; the longest prompt fits."""
PHOTOS = ("image", "image[]")
REPEATED = ("reference_prompt", "reference_prompt[]")
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


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[tuple[dict[str, Any], list[UploadFile | str]]]:
    """Yield the fields of a form, and its photos: files, or texts that may be addresses.

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


def _sorted(form: FormData) -> tuple[dict[str, Any], list[UploadFile | str]]:
    values: dict[str, Any] = {}
    photos: list[UploadFile | str] = []
    for name, value in form.multi_items():
        if name in PHOTOS:
            photos.append(value)
        elif not isinstance(value, str):
            check_supported(name)
            if name in Fields.model_fields:
                raise FieldError(f"The field {name[:100]} is a file, but must be text.", name[:100])
            raise FieldError(
                f"Files in the field {name[:100]} are not supported here; photos go into image or image[].",
                name[:100],
            )
        elif name in REPEATED:
            values.setdefault("reference_prompt", []).append(value)
        elif name in values:
            raise FieldError(f"The field {name[:100]} is given twice.", name[:100])
        else:
            values[name] = value
    return values, photos


class PhotoReader:
    """Decodes photos, few at a time, and brings them to the pictures' size."""

    def __init__(self, fetcher: Fetcher | None = None) -> None:
        self._fetcher = fetcher
        self._limiter = anyio.CapacityLimiter(DECODERS)
        self._fetching = anyio.CapacityLimiter(FETCHES)

    async def read(self, photos: list[UploadFile | str], width: int, height: int) -> list[Image.Image]:
        """Upright RGB references of width x height. Raises PictureError that names the file, FieldError."""
        return [await self._read(photo, number, width, height) for number, photo in enumerate(photos, 1)]

    async def _read(self, photo: UploadFile | str, number: int, width: int, height: int) -> Image.Image:
        def decode(data: bytes, name: str) -> Image.Image:
            return fitted(open_picture(data, name), width, height)

        if isinstance(photo, str):
            address, fetcher = photo, self._fetcher
            if fetcher is None:
                raise FieldError(
                    "image must be a file: this server takes no address, path or data URL for a picture.",
                    "image",
                )
            data = await self._fetch(fetcher, address)
            return await anyio.to_thread.run_sync(decode, data, address[:200], limiter=self._limiter)
        name = shown_name(photo.filename, number)
        if (photo.size or 0) > MAX_PHOTO:
            raise TooLargeError(f"{name} has {photo.size} bytes; at most {MAX_PHOTO} are accepted.")
        if not photo.size:
            raise PictureError(f"{name} is empty.")
        data = await photo.read()
        return await anyio.to_thread.run_sync(decode, data, name, limiter=self._limiter)

    async def _fetch(self, fetcher: Fetcher, address: str) -> bytes:
        """Off the decoders' threads, so that ordinary uploads go on whatever a slow machine does."""
        try:
            with anyio.fail_after(fetcher.seconds + LOOKUP):  # a name server that is silent heeds no deadline
                return await anyio.to_thread.run_sync(
                    fetcher.fetch, address, limiter=self._fetching, abandon_on_cancel=True
                )
        except TimeoutError:
            raise fetcher.too_slow(address) from None


def shown_name(name: str | None, number: int) -> str:
    """Return an upload's name as messages show it, without folders and odd characters; it is never a path."""
    last = PurePosixPath((name or "").replace("\\", "/")).name.strip(".")
    return "".join(letter for letter in last if letter.isprintable())[:80] or f"image {number}"
