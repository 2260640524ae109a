"""The index beside a tar: where each sample's files are, so that any of them is one range read away.

A sample is what WebDataset calls so: the neighbouring files of a tar whose names are alike up to the first
dot. The index of `x.tar` is `x.tar.index.jsonl`.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from jedi_diffusion.data.record import KINDS
from jedi_diffusion.data.stacked import split_captions
from jedi_diffusion.data.storage import length_of, read_bytes, write_bytes
from jedi_diffusion.errors import DataError, PictureError
from jedi_diffusion.files import plain_name
from jedi_diffusion.pictures import picture_size

FORMAT: Final = "jedi shard index 1"
SUFFIX = ".index.jsonl"
BLOCK = 512  # bytes; a tar is made of these and ends with two empty ones


def checksum(data: bytes) -> str:
    """BLAKE2b of 16 bytes as 32 hexadecimal digits: finds damage, as fast as it is read."""
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
        """The index of a tar of this name and length."""
        body = b"".join(each.model_dump_json(exclude_none=True).encode() + b"\n" for each in samples)
        header = Header(tar=tar, length=length, samples=len(samples), checksum=checksum(body))
        return cls(header, body)

    @classmethod
    def parse(cls, data: bytes) -> ShardIndex:
        """The index in these bytes. Raises ValueError."""
        first, _, body = data.partition(b"\n")
        index = cls(Header.model_validate_json(first), body)
        if len(index) != index.header.samples or checksum(body) != index.header.checksum:
            raise ValueError("its lines are not those that were written")
        return index

    def encode(self) -> bytes:
        """What `parse` reads."""
        return self.header.model_dump_json().encode() + b"\n" + self._body

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> Sample:
        start = int(self._ends[row - 1]) + 1 if row else 0
        return Sample.model_validate_json(self._body[start : int(self._ends[row])])


def index_name(tar: str) -> str:
    """Where the index of a tar is."""
    return tar + SUFFIX


def load_index(tar: str) -> ShardIndex:
    """The index of a tar, local or remote, after a look at the tar's length.

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
    """What the index says about a sample beyond places; a picture or video that is broken says nothing."""
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
        from jedi_diffusion.data.frames import seconds_of

        try:
            return {"seconds": seconds_of(data, name)}
        except DataError:  # the same
            return {}
    return {}
