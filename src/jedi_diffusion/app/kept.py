"""Finished pictures on disk, until their clients have had time to fetch them."""

from __future__ import annotations

import secrets
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from jedi_diffusion.app.private_folder import PrivateFolder
from jedi_diffusion.errors import JeDiError, OutputError


class GoneError(JeDiError):
    """A picture was finished, and is no longer kept."""


@dataclass(frozen=True)
class Kept:
    """A finished picture: the file that holds its pixels, and how many bytes that has."""

    path: Path
    bytes: int

    def open(self) -> Image.Image:
        """Return the picture itself, RGB. Raises GoneError."""
        try:
            with Image.open(self.path) as picture:
                return picture.convert("RGB")
        except FileNotFoundError as error:
            raise GoneError("The picture is no longer kept.") from error

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)


class Shelf:
    """Where pictures are kept: a `PrivateFolder`, made with the first one and gone with the process."""

    def __init__(self) -> None:
        self._folder: PrivateFolder | None = None
        self._lock = threading.Lock()

    def add(self, picture: Image.Image) -> Kept:
        """Write a picture. Raises OutputError."""
        path = self._path() / f"{secrets.token_hex(16)}.png"
        try:
            picture.save(path, compress_level=1)
            return Kept(path, path.stat().st_size)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OutputError("The server's disk takes no more pictures.") from error

    def _path(self) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = PrivateFolder()
                weakref.finalize(self, self._folder.close)
            return self._folder.path
