"""Finished pieces of a long run on disk: each has a folder, what it was made with, and a result that is
written last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from jedi_diffusion.errors import RecipeError
from jedi_diffusion.files import RunFolder, file_lock, make_folder, write_file

RECORD = "piece.json"


def open_piece(folder: str | Path, record: Mapping[str, Any]) -> Path:
    """The folder of a piece, for this `record` (plain JSON values) only.

    Raises RecipeError where it was begun with another one, OutputError.
    """
    remedy = "choose another folder for --out, or remove that one to make it anew"
    return RunFolder(Path(folder), RECORD, "was made by another recipe", remedy).open(record)


def piece_lock(out: Path, name: str, wait: bool = True) -> AbstractContextManager[bool]:
    """Keep other processes on the folder `out` from the piece `name` meanwhile; see `file_lock`."""
    return file_lock(make_folder(out / "locks") / name, wait)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that a piece wrote. Raises RecipeError naming the file."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise RecipeError(f"{path} cannot be read ({error}): remove it, and it is made anew.") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a piece's result, whole or not at all. Raises OutputError."""
    write_file(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
