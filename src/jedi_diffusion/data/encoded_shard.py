"""Latents and text embeddings of a shard, kept beside it: what the frozen networks make of its sets.

`x.tar.NAME.safetensors` belongs to `x.tar`. Sets lie end to end; each different caption is there once, the
empty one first. A picture's row is found by arithmetic and read by a range, on a disk as in a bucket.

Letters: S sets of a shard; P pictures of all of them; N of one; C, H, W a latent's channels, height, width;
U different captions; K text tokens; D text features; F pooled text features (SDXL).

| tensor | holds |
|---|---|
| first (S + 1) | the number of each set's first picture; a set that could not be used has none |
| caption (P) | the row of `text` and `pooled` for each picture |
| latents (P, C, H, W) | scaled latents, the mode of the autoencoder's posterior |
| text (U, K, D), pooled (U, F) | embeddings of captions; pooled for models that read it |
| NAME.sum (P or U) | CRC-32 of each row of latents, text, pooled |
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import IO, Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from jedi_diffusion.data.storage import length_of, publish, read_bytes, scratch_file
from jedi_diffusion.errors import DataError, OutputError

FORMAT: Final = "jedi encoded shard 1"
KEY = "jedi"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
START_BYTES = 2**16
"""What is read of a file at first: its header is seldom longer."""
MAX_HEADER_BYTES = 2**26
NEAR_BYTES = 2**18
"""Rows that are less apart are read in one go, with what lies between them."""
ROWS = ("first", "caption", "latents", "text")


class EncodedAbout(BaseModel):
    """What the file says of itself.

    `encoders` is the fingerprint of all that turns pictures and captions into numbers (see
    `train.frozen`), `index` the checksum in the header of the tar's index; faults gives the reason for each
    set that could not be used, by its row in the tar.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["jedi encoded shard 1"] = FORMAT
    tar: str
    index: str
    encoders: str
    base: str
    kind: Literal["sets", "single"]
    resolution: PositiveInt
    dtype: Literal["float32", "float16", "bfloat16"]
    faults: dict[NonNegativeInt, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class EncodedSet:
    """N pictures of a set as a model is trained on them, in the stored type.

    latents (N, C, H, W); text (N, K, D) and pooled (N, F) or None; null_text (K, D) and null_pooled (F) are
    the empty caption's; captioned (N,) bool, false where the caption is that one.
    """

    latents: Tensor
    text: Tensor
    null_text: Tensor
    captioned: Tensor
    pooled: Tensor | None = None
    null_pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)


def encoded_name(tar: str, name: str) -> str:
    """Return where the encoded shard called `name` of a tar is."""
    return f"{tar}.{name}.safetensors"


@dataclass(frozen=True)
class _Array:
    """A tensor's place in its file: `start` is its first byte."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class EncodedShard:
    """An encoded shard, opened by its header alone; rows are read when they are asked for.

    Raises DataError that names the file: it is missing or damaged.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.about, self._arrays = _read_header(url)

    def __len__(self) -> int:
        return self._arrays["first"].shape[0] - 1

    def pictures(self, row: int) -> int:
        """Return how many pictures the set in a row of the tar has; 0 if it could not be used."""
        return int(self._first[row + 1] - self._first[row])

    def read(self, row: int, chosen: Sequence[int]) -> EncodedSet:
        """Return the pictures with these numbers of the set in a row. Raises DataError for damage.

        So does a set that could not be used, with its reason.
        """
        if row in self.about.faults or not self.pictures(row):
            raise DataError(self.about.faults.get(row, f"{self.url} holds nothing for set number {row}."))
        pictures = [int(self._first[row]) + number for number in chosen]
        captions = [int(self._caption[picture]) for picture in pictures]
        return EncodedSet(
            latents=self._rows("latents", pictures),
            text=self._rows("text", captions),
            null_text=self._null["text"],
            captioned=torch.tensor(captions) != 0,
            pooled=self._rows("pooled", captions) if "pooled" in self._arrays else None,
            null_pooled=self._null.get("pooled"),
        )

    @cached_property
    def _first(self) -> Tensor:
        return self._whole("first")

    @cached_property
    def _caption(self) -> Tensor:
        return self._whole("caption")

    @cached_property
    def _null(self) -> dict[str, Tensor]:
        return {name: self._rows(name, [0])[0] for name in ("text", "pooled") if name in self._arrays}

    @cached_property
    def _sums(self) -> dict[str, Tensor]:
        names = ("latents", "text", "pooled")
        return {name: self._whole(f"{name}.sum") for name in names if name in self._arrays}

    def _whole(self, name: str) -> Tensor:
        array = self._arrays[name]
        size = array.shape[0] * array.row_bytes
        return _tensor(read_bytes(self.url, array.start, array.start + size), array, array.shape[0])

    def _rows(self, name: str, numbers: Sequence[int]) -> Tensor:
        """Return rows of a tensor with checked sums, by as few reads as are worth it."""
        array, sums = self._arrays[name], self._sums[name]
        found: dict[int, bytes] = {}
        for run in _runs(sorted(set(numbers)), max(1, NEAR_BYTES // array.row_bytes)):
            start = array.start + run[0] * array.row_bytes
            data = read_bytes(self.url, start, array.start + (run[-1] + 1) * array.row_bytes)
            for number in run:
                offset = (number - run[0]) * array.row_bytes
                found[number] = data[offset : offset + array.row_bytes]
                if zlib.crc32(found[number]) != int(sums[number]):
                    raise DataError(f"{self.url} is damaged: the sum of its {name} number {number} is wrong.")
        return _tensor(b"".join(found[number] for number in numbers), array, len(numbers))


def _runs(numbers: Sequence[int], near: int) -> Iterator[list[int]]:
    """Yield rising numbers in groups: within one, neighbours are at most `near` apart."""
    run: list[int] = []
    for number in numbers:
        if run and number - run[-1] > near:
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _tensor(data: bytes, array: _Array, rows: int) -> Tensor:
    shape = (rows, *array.shape[1:])
    if not data:
        return torch.zeros(shape, dtype=array.dtype)
    return torch.frombuffer(bytearray(data), dtype=array.dtype).view(shape)


def _read_header(url: str) -> tuple[EncodedAbout, dict[str, _Array]]:
    length = length_of(url)
    start = read_bytes(url, 0, min(length, START_BYTES))
    size = int.from_bytes(start[:8], "little")
    try:
        if not 2 <= size <= min(MAX_HEADER_BYTES, length - 8):
            raise ValueError("it is cut off, or no safetensors file")
        if 8 + size > len(start):
            start += read_bytes(url, len(start), 8 + size)
        header = json.loads(start[8 : 8 + size])
        about = EncodedAbout.model_validate_json(header.pop("__metadata__")[KEY])
        arrays = {name: _array(entry, 8 + size, length) for name, entry in header.items()}
        _check_shapes(arrays)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise DataError(
            f"{url} is damaged ({reason}); remove it and make it anew by `jedi data encode`."
        ) from error
    return about, arrays


def _array(entry: Any, start: int, length: int) -> _Array:
    """Return the place of a tensor. Raises ValueError, KeyError or TypeError if the file cannot hold it."""
    first, last = entry["data_offsets"]
    shape = tuple(int(each) for each in entry["shape"])
    array = _Array(DTYPES[entry["dtype"]], shape, start + int(first))
    if not shape or min(shape) < 0 or min(shape[1:], default=1) < 1:
        raise ValueError(f"a tensor has the shape {shape}")
    if first < 0 or start + last > length or last - first != shape[0] * array.row_bytes:
        raise ValueError("a tensor does not fit the file")
    return array


def _check_shapes(arrays: dict[str, _Array]) -> None:
    """Raise ValueError or KeyError where tensors are missing or disagree on the number of rows."""
    pictures, captions = arrays["latents"].shape[0], arrays["text"].shape[0]
    expected = {"caption": pictures, "latents.sum": pictures, "text.sum": captions}
    if "pooled" in arrays:
        expected |= {"pooled": captions, "pooled.sum": captions}
    wrong = [name for name, rows in expected.items() if arrays[name].shape[0] != rows]
    if wrong or captions < 1 or arrays["first"].shape[0] < 1:
        raise ValueError(f"the rows of {', '.join(wrong) or 'text'} do not fit the others")


NAMES = {dtype: name for name, dtype in DTYPES.items()}


class EncodedWriter:
    """Makes the encoded shard at `url`: the sets of a tar in their order, by `add_set` or `add_fault`.

    Use it as a context; it has its name when the context is left without an error, and is whole then. Raises
    OutputError.
    """

    def __init__(self, url: str, about: EncodedAbout) -> None:
        self.url, self.about = url, about
        self.captions: dict[str, int] = {}
        self._dtype: torch.dtype = getattr(torch, about.dtype)
        self._rows: dict[str, _Rows] = {}
        self._first, self._caption = [0], list[int]()
        self._faults: dict[int, str] = {}

    def __enter__(self) -> EncodedWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for rows in self._rows.values():
                rows.file.close()

    def unknown(self, captions: Sequence[str]) -> list[str]:
        """Those of the captions that have no embedding yet, each once; at first the empty one too."""
        return [each for each in dict.fromkeys(["", *captions]) if each not in self.captions]

    def add_captions(self, captions: Sequence[str], text: Tensor, pooled: Tensor | None) -> None:
        """Embeddings (., K, D) and, where there are, (., F) of captions that were unknown.

        Raises DataError if they cannot be stored in the file's type.
        """
        stored = {"text": self._stored(text, "text embeddings")}
        if pooled is not None:
            stored["pooled"] = self._stored(pooled, "text embeddings")
        for name, values in stored.items():
            self._append(name, values)
        for caption in captions:
            self.captions[caption] = len(self.captions)

    def add_set(self, latents: Tensor, captions: Sequence[str]) -> None:
        """Write the next set: latents (N, C, H, W), and its captions, which are known. Raises DataError."""
        self._append("latents", self._stored(latents, "latents"))
        self._caption += [self.captions[caption] for caption in captions]
        self._first.append(len(self._caption))

    def add_fault(self, reason: str) -> None:
        """Note that the next set cannot be used."""
        self._faults[len(self._first) - 1] = reason
        self._first.append(len(self._caption))

    def _stored(self, values: Tensor, what: str) -> Tensor:
        stored = values.to("cpu", self._dtype).contiguous()
        if not bool(torch.isfinite(stored).all()):
            raise DataError(
                f"The {what} do not fit {self.about.dtype}: encode with --store bfloat16 or float32."
                if bool(torch.isfinite(values).all())
                else f"The {what} are not finite: encode with --precision float32."
            )
        return stored

    def _append(self, name: str, values: Tensor) -> None:
        if name not in self._rows:
            # Beside its place, where the whole will need the room anyway; among temporary files if remote.
            folder = scratch_file(self.url).parent
            try:
                file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            except OSError as error:
                raise self._unwritable(error) from error
            self._rows[name] = _Rows(file, tuple(values.shape[1:]))
        try:
            self._rows[name].append(values)
        except OSError as error:
            raise self._unwritable(error) from error

    def _finish(self) -> None:
        small = {"first": self._first, "caption": self._caption}
        small |= {f"{name}.sum": rows.sums for name, rows in self._rows.items()}
        tables = {name: torch.tensor(values, dtype=torch.int64) for name, values in small.items()}
        if "latents" not in self._rows:
            raise DataError(f"No set of {self.about.tar} can be used: there is nothing to encode.")
        scratch = scratch_file(self.url)
        try:
            with open(scratch, "xb") as file:
                file.write(self._header(tables))
                for table in tables.values():
                    file.write(_bytes(table))
                for rows in self._rows.values():
                    rows.file.seek(0)
                    shutil.copyfileobj(rows.file, file, 2**20)
            publish(scratch, self.url)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            scratch.unlink(missing_ok=True)

    def _header(self, tables: dict[str, Tensor]) -> bytes:
        about = self.about.model_copy(update={"faults": self._faults})
        header: dict[str, Any] = {"__metadata__": {KEY: about.model_dump_json()}}
        end = 0
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]]
        shapes = {name: ((len(table),), torch.int64) for name, table in tables.items()}
        shapes |= {name: ((len(rows.sums), *rows.shape), self._dtype) for name, rows in self._rows.items()}
        for name, (shape, dtype) in shapes.items():
            start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
            header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.url} cannot be written: {error.strerror or error}.")


class _Rows:
    """Rows of one tensor on their way to the file, with the sum of each."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...]) -> None:
        self.file, self.shape = file, shape
        self.sums: list[int] = []

    def append(self, values: Tensor) -> None:
        for row in values:
            data = _bytes(row)
            self.sums.append(zlib.crc32(data))
            self.file.write(data)


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().flatten().view(torch.uint8).numpy().tobytes()
