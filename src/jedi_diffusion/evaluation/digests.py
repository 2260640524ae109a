"""SHA-256 of files, remembered for as long as a file stays as it is: what is known need not be read again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path

from jedi_diffusion.errors import PictureError
from jedi_diffusion.files import write_file

logger = logging.getLogger(__name__)

SETTLED = 1_000_000_000
"""Nanoseconds: a file changed more recently than this might change again without its times showing it."""

Stamp = tuple[int, int, int, int]
"""Size, times of change of content and of the entry in nanoseconds, inode."""


class FileDigests:
    """Digests of files by path, kept in the JSON file `record`. A damaged record is dropped."""

    def __init__(self, record: Path) -> None:
        self.record = record
        self._known: dict[str, tuple[Stamp, bytes]] = {}
        self._changed = False
        try:
            rows = json.loads(record.read_bytes())
            self._known = {path: (_stamp(row[0]), bytes.fromhex(row[1])) for path, row in rows.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            logger.warning("%s is damaged (%s); files are read again.", record, error)

    def of(self, path: Path) -> tuple[bytes, bytes | None]:
        """Return a file's digest, and its content where it had to be read.

        Raises PictureError that names it.
        """
        name = os.path.abspath(path)
        try:
            stamp = _stamp_of(os.stat(name))
            known = self._known.get(name)
            if known is not None and known[0] == stamp:
                return known[1], None
        except OSError as error:
            raise PictureError(f"{path} cannot be read: {error.strerror}.") from error
        data = read_bytes(path)
        digest = hashlib.sha256(data).digest()
        if max(stamp[1:3]) < time.time_ns() - SETTLED:
            self._known[name] = stamp, digest
            self._changed = True
        return digest, data

    def save(self) -> None:
        """Write what is new. Raises OutputError."""
        if self._changed:
            rows = {path: (stamp, digest.hex()) for path, (stamp, digest) in self._known.items()}
            write_file(self.record, json.dumps(rows).encode())
            self._changed = False


def read_bytes(path: Path) -> bytes:
    """Raise PictureError that names the file, also where it is empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror}.") from error
    if not data:
        raise PictureError(f"{path} is empty.")
    return data


def _stamp_of(found: os.stat_result) -> Stamp:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _stamp(row: list[int]) -> Stamp:
    size, content, entry, inode = (int(each) for each in row)
    return size, content, entry, inode
