"""Features on disk, found by what was encoded (a SHA-256) and by the encoder that did it.

A folder for each encoder holds `encoder.json`, its fingerprint, and a file for each batch of features,
written in one step. A damaged file is dropped: its features are made again.
Letters: B rows in a file; D features.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from jedi_diffusion.errors import ModelError, OutputError
from jedi_diffusion.evaluation.encoders import Encoder, Rows
from jedi_diffusion.files import make_folder, write_file

logger = logging.getLogger(__name__)

RECORD = "encoder.json"
KEY_BYTES = 32


def key_of(*parts: bytes) -> bytes:
    """Return the key of what is encoded: SHA-256 over its parts and their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


class FeatureCache:
    """The features of one encoder in `folder`/<encoder's name>, all of them in memory.

    Raises ModelError where the folder belongs to an encoder of the same name with another fingerprint,
    OutputError where it cannot be written.
    """

    def __init__(self, folder: str | Path, encoder: Encoder) -> None:
        self.folder = make_folder(Path(folder) / encoder.name)
        self.rows: dict[bytes, Rows] = {}
        self._check(encoder)
        for path in sorted(self.folder.glob("*.safetensors")):
            self._read(path)

    def _check(self, encoder: Encoder) -> None:
        record = self.folder / RECORD
        if not record.exists() and not any(self.folder.glob("*.safetensors")):
            write_file(record, json.dumps({"fingerprint": encoder.fingerprint}).encode())
            return
        try:
            found = json.loads(record.read_bytes())["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            found = "unknown"
        if found != encoder.fingerprint:
            raise ModelError(
                f"{self.folder} holds features of another encoder {encoder.name} (fingerprint {found[:16]}, "
                f"not {encoder.fingerprint[:16]}): delete the folder, or choose another cache."
            )

    def _read(self, path: Path) -> None:
        try:
            content = load(path.read_bytes())
            keys, rows = content["keys"], content["features"]
            if keys.shape != (len(rows), KEY_BYTES) or rows.ndim != 2:
                raise ValueError(f"shapes {keys.shape} and {rows.shape} do not belong together")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            logger.warning("%s is damaged (%s); its features are made again.", path, error)
            self._drop(path)
            return
        self.rows |= {key.tobytes(): row for key, row in zip(keys, rows, strict=True)}

    def _drop(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be removed: {error.strerror}.") from error

    def add(self, keys: Sequence[bytes], rows: Rows) -> None:
        """Keep one row for each key, here and on disk. Raises OutputError."""
        if not keys:
            return
        table = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), KEY_BYTES)
        name = key_of(*keys).hex()[:32]
        content = {"keys": table, "features": np.ascontiguousarray(rows)}
        write_file(self.folder / f"{name}.safetensors", save(content))
        self.rows |= dict(zip(keys, rows, strict=True))
