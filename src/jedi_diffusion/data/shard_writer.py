"""Writes shards: tars in WebDataset's layout, each whole or not there at all, with its index beside it."""

from __future__ import annotations

import io
import os
import re
import tarfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from jedi_diffusion.data.record import StoredSet
from jedi_diffusion.data.shard_index import build_index, save_index
from jedi_diffusion.data.storage import exists, names_in, open_folder, publish, scratch_file
from jedi_diffusion.errors import OutputError, UsageError

NAME = re.compile(r"(\d{5,})\.tar")


class ShardWriter:
    """Sets into `folder`/00000.tar, 00001.tar ... in the order of `write`, `sets` sets or `size` bytes each.

    Use it as a context. A tar gets its name when it is finished, so shards with a name are whole, and stay
    so if the process is killed or the disk is full. An existing folder of shards is gone on with; one writer
    at a time may do so. The folder may be on s3:// or wherever fsspec writes: a shard is then put together
    among this machine's temporary files. With `first`, shards are numbered from there, and writers of
    different numbers may share a folder.
    """

    def __init__(
        self, folder: str | Path, sets: int = 10_000, size: int = 2**30, first: int | None = None
    ) -> None:
        if sets < 1 or size < 1:
            raise UsageError("A shard holds at least one set and one byte.")
        self.folder = open_folder(str(folder))
        self.finished: list[str] = []
        self._sets, self._size = sets, size
        numbers = [int(found[1]) for name in names_in(self.folder) if (found := NAME.fullmatch(name))]
        self._next = max(numbers, default=-1) + 1 if first is None else first
        self._temporary: Path | None = None
        self._archive: tarfile.TarFile | None = None
        self._written = 0
        self._keys: set[str] = set()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self._drop()

    def write(self, item: StoredSet) -> None:
        """Add a set to the current shard. Raises OutputError (it is dropped then), UsageError for the key.

        Interrupted, it leaves the shard as it was.
        """
        if not re.fullmatch(r"[\w-]+", item.key) or item.key in self._keys:
            raise UsageError(
                f"{item.key!r} cannot name a set: letters, digits, - and _, each name once a shard."
            )
        members = item.members()
        size = sum(len(data) for data in members.values())
        full = self._archive is not None and self._archive.offset + size > self._size
        if self._written >= self._sets or (full and self._written):
            self.finish()
        try:
            archive = self._archive or self._open()
        except OSError as error:
            self._fail(error)
        whole = archive.offset
        try:
            for ending, data in members.items():
                entry = tarfile.TarInfo(f"{item.key}.{ending}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        except OSError as error:
            self._fail(error)
        except KeyboardInterrupt:
            self._cut(whole)
            raise
        self._written += 1
        self._keys.add(item.key)

    def finish(self) -> None:
        """Close the current shard and give it its name; nothing if it has no set yet. Raises OutputError."""
        if self._archive is None or self._temporary is None:
            return
        if not self._written:
            self._drop()
            return
        final = self._place()
        if exists(final):
            self._drop()
            raise OutputError(f"{final} was written by another program meanwhile: give each a folder.")
        try:
            self._archive.close()
            # The index first: one without its tar is never looked at, a tar without one would be refused.
            save_index(final, build_index(self._temporary, final.rpartition("/")[2]))
            publish(self._temporary, final)
        except OSError as error:
            self._fail(error)
        except BaseException:
            self._drop()
            raise
        self.finished.append(final)
        self._next += 1
        self._reset()

    def _cut(self, length: int) -> None:
        """Take away what was written of a set."""
        if self._archive is not None and self._archive.fileobj is not None and self._temporary is not None:
            self._archive.fileobj.seek(length)  # which writes what is still buffered
            os.truncate(self._temporary, length)
            self._archive.offset = length

    def _place(self) -> str:
        return f"{self.folder}/{self._next:05d}.tar"

    def _open(self) -> tarfile.TarFile:
        self._temporary = scratch_file(self._place())
        archive = tarfile.open(self._temporary, "x", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._archive = archive
        return archive

    def _fail(self, error: OSError) -> None:
        self._drop()
        raise OutputError(
            f"A shard in {self.folder} cannot be written: {error.strerror or error}; "
            f"{len(self.finished)} finished shards are kept."
        ) from error

    def _drop(self) -> None:
        if self._archive is not None and self._archive.fileobj is not None:
            with suppress(OSError):  # what is still buffered does not fit either
                self._archive.fileobj.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
        self._reset()

    def _reset(self) -> None:
        self._archive = self._temporary = None
        self._written = 0
        self._keys = set()
