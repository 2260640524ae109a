"""Shards: tars in WebDataset's layout, each with an index by which any sample is one range read away.

A sample is what WebDataset calls so: the neighbouring files of a tar whose names are alike up to the first
dot. The index of `x.tar` is `x.tar.index.jsonl`. A shard is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.record import KINDS, StoredSet, split_captions
from jedi_diffusion.data.storage import (
    exists,
    length_of,
    names_in,
    open_folder,
    publish,
    read_bytes,
    scratch_file,
    tars_of,
    write_bytes,
)
from jedi_diffusion.errors import DataError, OutputError, PictureError, UsageError
from jedi_diffusion.files import plain_name
from jedi_diffusion.pictures import picture_size

FORMAT: Final = "jedi shard index 1"
SUFFIX = ".index.jsonl"
BLOCK = 512  # bytes; a tar is made of these and ends with two empty ones


def checksum(data: bytes) -> str:
    """Return BLAKE2b of 16 bytes as 32 hexadecimal digits: finds damage, as fast as it is read."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class Member(BaseModel):
    """One file of a sample: `size` bytes from byte `offset` of the tar."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offset: NonNegativeInt
    size: NonNegativeInt
    checksum: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Sample(BaseModel):
    """Files by ending; width and height of the picture (0 if it cannot be read or there is none), number of
    captions, and seconds of the video, where there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    files: Annotated[dict[str, Member], Field(min_length=1)]
    width: NonNegativeInt = 0
    height: NonNegativeInt = 0
    captions: NonNegativeInt = 0
    seconds: Annotated[float, Field(ge=0)] | None = None

    @property
    def span(self) -> tuple[int, int]:
        """First byte and last (exclusive) of all its files."""
        return (
            min(file.offset for file in self.files.values()),
            max(file.offset + file.size for file in self.files.values()),
        )


class Header(BaseModel):
    """The first line: which tar, how many bytes it has, and how many lines of which checksum follow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["jedi shard index 1"] = FORMAT
    tar: str
    length: NonNegativeInt
    samples: NonNegativeInt
    checksum: str


class ShardIndex:
    """Every sample of a tar, by its place in it.

    The file is JSON lines: a header, then a line a sample. Lines stay text until they are asked for: data
    sets have millions of samples, and every process of a training holds their index.
    """

    def __init__(self, header: Header, body: bytes) -> None:
        self.header = header
        self._body = body
        self._ends = np.flatnonzero(np.frombuffer(body, np.uint8) == ord("\n"))

    @classmethod
    def of(cls, tar: str, length: int, samples: Sequence[Sample]) -> ShardIndex:
        """Return the index of a tar of this name and length."""
        body = b"".join(each.model_dump_json(exclude_none=True).encode() + b"\n" for each in samples)
        header = Header(tar=tar, length=length, samples=len(samples), checksum=checksum(body))
        return cls(header, body)

    @classmethod
    def parse(cls, data: bytes) -> ShardIndex:
        """Return the index in these bytes. Raises ValueError."""
        first, _, body = data.partition(b"\n")
        index = cls(Header.model_validate_json(first), body)
        if len(index) != index.header.samples or checksum(body) != index.header.checksum:
            raise ValueError("its lines are not those that were written")
        return index

    def encode(self) -> bytes:
        """Return what `parse` reads."""
        return self.header.model_dump_json().encode() + b"\n" + self._body

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> Sample:
        start = int(self._ends[row - 1]) + 1 if row else 0
        return Sample.model_validate_json(self._body[start : int(self._ends[row])])


def index_name(tar: str) -> str:
    """Return where the index of a tar is."""
    return tar + SUFFIX


def load_index(tar: str) -> ShardIndex:
    """Return the index of a tar, local or remote, after a look at the tar's length.

    Raises DataError that names the index: it is missing, damaged, or of another tar than is there now.
    """
    name = index_name(tar)
    try:
        data = read_bytes(name)
    except DataError as error:
        raise DataError(f"{tar} has no index ({error}) `jedi data index` makes it.") from error
    try:
        index = ShardIndex.parse(data)
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise DataError(
            f"The index {name} is damaged ({reason}); make it anew by `jedi data index`."
        ) from error
    length = length_of(tar)
    if length != index.header.length:
        raise DataError(
            f"The index {name} is stale: it is of a tar of {index.header.length} bytes, but {tar} has "
            f"{length}; make it anew by `jedi data index`."
        )
    return index


def save_index(tar: str | Path, index: ShardIndex) -> None:
    """Write the index beside its tar, local or remote, in one step. Raises OutputError."""
    write_bytes(index_name(str(tar)), index.encode())


@dataclass
class _Growing:
    """A sample while its files are read."""

    key: str
    files: dict[str, Member]
    about: dict[str, Any]


def build_index(tar: Path, name: str | None = None) -> ShardIndex:
    """Read a local tar from end to end and say what is in it; `name` is the name it will have.

    Raises DataError that gives the tar: it is no tar, ends too early, or scatters a sample's files.
    """
    samples: list[_Growing] = []
    seen: set[str] = set()
    try:
        with open(tar, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                folder, _, base = entry.name.rpartition("/")
                stem, _, ending = base.partition(".")
                if not entry.isreg() or not stem or not ending:
                    continue
                key = plain_name(f"{folder}/{stem}" if folder else stem)
                if not samples or samples[-1].key != key:
                    if key in seen:
                        raise DataError(
                            f"{tar} scatters the files of {key}; a sample's files are neighbours."
                        )
                    seen.add(key)
                    samples.append(_Growing(key, {}, {}))
                data = _read_at(file, entry.offset_data, entry.size)
                member = Member(offset=entry.offset_data, size=entry.size, checksum=checksum(data))
                samples[-1].files[ending.lower()] = member
                samples[-1].about.update(_about(ending.lower(), data, f"{key} of {tar}"))
            length = _checked_length(file)
    except tarfile.TarError as error:
        raise DataError(f"{tar} is not a whole tar: {error}.") from error
    except OSError as error:
        raise DataError(f"{tar} cannot be read: {error.strerror or error}.") from error
    except DataError as error:
        if str(tar) in str(error):
            raise
        raise DataError(f"{tar} is not a whole tar: {error}.") from error
    done = tuple(Sample(key=each.key, files=each.files, **each.about) for each in samples)
    return ShardIndex.of(plain_name(name or tar.name), length, done)


def _read_at(file: Any, offset: int, size: int) -> bytes:
    file.seek(offset)
    data: bytes = file.read(size)
    if len(data) != size:
        raise DataError("it is cut off")
    return data


def _checked_length(file: Any) -> int:
    length: int = file.seek(0, 2)
    if length < 2 * BLOCK or _read_at(file, length - 2 * BLOCK, 2 * BLOCK).strip(b"\0"):
        raise DataError("its end is missing")
    return length


def _about(ending: str, data: bytes, name: str) -> dict[str, Any]:
    """Return what the index says about a sample beyond places; a picture or video that is broken says
    nothing.
    """
    if ending in (*KINDS, "jpeg"):
        try:
            width, height = picture_size(data, name)
        except PictureError:  # found again, and quarantined with its reason, when it is read
            return {}
        return {"width": width, "height": height}
    if ending == "txt":
        return {"captions": len(split_captions(data.decode(errors="replace")))}
    if ending == "json":
        return {}
    if ending == "mp4":
        from jedi_diffusion.data.video import seconds_of

        try:
            return {"seconds": seconds_of(data, name)}
        except DataError:  # the same
            return {}
    return {}


@dataclass(frozen=True)
class StoredSample:
    """The files of a sample by ending; `name` says which one it is in messages."""

    key: str
    name: str
    files: dict[str, bytes]


class Shards:
    """The samples of tars (see `storage.tars_of`), numbered through in the order of the tars.

    With a `quarantine`, a tar without a sound index is recorded there and left out; otherwise it raises
    DataError.
    """

    def __init__(self, place: str, quarantine: Quarantine | None = None) -> None:
        self.place = place
        self._tars: list[str] = []
        self._indexes: list[ShardIndex] = []
        faults: list[str] = []
        for tar in tars_of(place):
            try:
                index = load_index(tar)
            except DataError as error:
                if quarantine is None:
                    raise
                quarantine.add(place, tar, str(error))
                faults.append(str(error))
                continue
            self._tars.append(tar)
            self._indexes.append(index)
        self._ends = list(accumulate(len(index) for index in self._indexes))
        if not self:
            why = f": {len(faults)} of its shards cannot be used; the first: {faults[0]}" if faults else "."
            raise DataError(f"{place} holds no samples{why}")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def tars(self) -> list[tuple[str, ShardIndex]]:
        """Each tar that can be used, with its index, in order."""
        return list(zip(self._tars, self._indexes, strict=True))

    def parts(self) -> Iterator[tuple[str, str]]:
        """Yield each tar with the digest of its index, which holds the checksums of all its files."""
        yield from ((tar, index.header.checksum) for tar, index in self.tars)

    def place_of(self, item: int) -> tuple[int, int]:
        """Return the number of the tar that sample number `item` is in, and its row there."""
        if not 0 <= item < len(self):
            raise IndexError(item)
        shard = bisect_right(self._ends, item)
        return shard, item - (self._ends[shard - 1] if shard else 0)

    def sample(self, item: int) -> Sample:
        """Return what the index says of sample number `item`."""
        return self._find(item)[1]

    def captions(self, item: int) -> int:
        """Return how many captions sample number `item` has."""
        return self.sample(item).captions

    def name(self, item: int) -> str:
        """Return sample number `item` in words."""
        tar, sample = self._find(item)
        return f"{sample.key} of {tar}"

    def read(self, item: int, endings: Sequence[str] | None = None) -> StoredSample:
        """Return the files of sample number `item`, or those with these endings, by one range read.

        Raises DataError if the tar cannot be read there, or its bytes are not those that were indexed.
        """
        tar, sample = self._find(item)
        name = f"{sample.key} of {tar}"
        start, end = sample.span
        data = read_bytes(tar, start, end)
        files = {}
        for ending, file in sample.files.items():
            if endings is not None and ending not in endings:
                continue
            files[ending] = data[file.offset - start : file.offset - start + file.size]
            if checksum(files[ending]) != file.checksum:
                raise DataError(f"{name} is damaged: the checksum of its {ending} is not the index's.")
        return StoredSample(sample.key, name, files)

    def _find(self, item: int) -> tuple[str, Sample]:
        shard, row = self.place_of(item)
        return self._tars[shard], self._indexes[shard][row]


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
