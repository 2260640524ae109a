"""Writes encoded shards: rows as they are made, into unnamed files, and the whole in its place at the end.

Letters as in `encoded_shard`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any

import torch
from torch import Tensor

from jedi_diffusion.data.encoded_shard import DTYPES, KEY, EncodedAbout
from jedi_diffusion.data.storage import publish, scratch_file
from jedi_diffusion.errors import DataError, OutputError

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
        """The next set: latents (N, C, H, W), and its captions, which are known. Raises DataError."""
        self._append("latents", self._stored(latents, "latents"))
        self._caption += [self.captions[caption] for caption in captions]
        self._first.append(len(self._caption))

    def add_fault(self, reason: str) -> None:
        """The next set cannot be used."""
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
