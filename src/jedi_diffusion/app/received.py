"""Photos that visitors of the page have uploaded: kept under names that nobody can guess, and read once.

A request of the page names a photo by its handle, the path that the upload answered with. Handles are looked
up among those given out; no path of a request ever reaches the file system.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jedi_diffusion.app.room import Room
from jedi_diffusion.app.uploads import MAX_PHOTO, NoRoomError, TooLargeError, shown_name
from jedi_diffusion.errors import PictureError

SECONDS = 600.0
"""Seconds that an upload waits for the request that names it."""


@dataclass(frozen=True)
class Upload:
    """A file that has been received. `at`: when, by the monotonic clock."""

    path: Path
    client: str
    size: int
    at: float


class Received:
    """The uploads that wait in `folder`, for which there is `room`."""

    def __init__(self, folder: Path, room: Room | None = None) -> None:
        self.folder, self.room = folder, room or Room()
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True)

    def add(self, file: BinaryIO, size: int, name: str | None, client: str) -> str:
        """Store an upload of `size` bytes and return its handle.

        Raises TooLargeError, PictureError for no bytes at all, NoRoomError.
        """
        shown = shown_name(name, 1)
        if size > MAX_PHOTO:
            raise TooLargeError(f"{shown} has {size} bytes; at most {MAX_PHOTO} are accepted.")
        if not size:
            raise PictureError(f"{shown} is empty.")
        upload = Upload(self.folder / secrets.token_urlsafe(24) / shown, client, size, time.monotonic())
        self.drop_old()
        with self._lock:
            if not self.room.take(client, size):
                raise NoRoomError(f"There is no room for {shown} now; try again in a minute.")
            self._uploads[str(upload.path)] = upload
        try:
            upload.path.parent.mkdir(mode=0o700)
            with upload.path.open("xb") as stored:
                shutil.copyfileobj(file, stored)
        except BaseException:
            self._drop(str(upload.path))
            raise
        return str(upload.path)

    def __contains__(self, handle: object) -> bool:
        return handle in self._uploads

    @contextmanager
    def taken(self, handle: str) -> Iterator[Path]:
        """Yield the file of a handle, which is deleted afterwards.

        Raises PictureError for an unknown handle.
        """
        with self._lock:
            upload = self._uploads.get(handle)
        if upload is None:
            raise PictureError("A photo is not (or no longer) among the uploads; add it again.")
        try:
            yield upload.path
        finally:
            self._drop(handle)

    def check(self, value: Any) -> None:
        """Raise PictureError where a value, as JSON has it, holds an object that is not a received photo.

        Beside photos the page's requests hold texts, numbers and lists of these.
        """
        if isinstance(value, dict):
            if value.get("path") not in self or value.get("is_stream"):
                raise PictureError("A photo must be uploaded; addresses and paths are not read.")
        elif isinstance(value, (list, tuple)):
            for each in value:
                self.check(each)

    def drop_old(self) -> None:
        """Delete the uploads that have waited for too long."""
        oldest = time.monotonic() - SECONDS
        with self._lock:
            old = [handle for handle, each in self._uploads.items() if each.at < oldest]
        for handle in old:
            self._drop(handle)

    def _drop(self, handle: str) -> None:
        with self._lock:
            upload = self._uploads.pop(handle, None)
        if upload is not None:
            shutil.rmtree(upload.path.parent, ignore_errors=True)
            self.room.give_back(upload.client, upload.size)
