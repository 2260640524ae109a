"""Finished pieces of a long run on disk: each has a folder, what it was made with, and a result that is
written last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jedi_diffusion.errors import RecipeError
from jedi_diffusion.files import RunFolder, file_lock, make_folder, write_file

RECORD = "piece.json"
DIGESTS = ("backbone", "method")


Reader = Callable[[dict[str, Any]], Mapping[str, Any]]


def open_piece(folder: str | Path, record: Mapping[str, Any], read: Reader = dict) -> Path:
    """Return the folder of a piece, for this `record` (plain JSON values) only; `read` says what of it
    counts.

    Raises RecipeError where it was begun with another one, OutputError.
    """
    remedy = "choose another folder for --out, or remove that one to make it anew"
    return RunFolder(Path(folder), RECORD, "was made by another recipe", remedy, read).open(record)


def by_value(**sections: type[BaseModel]) -> Reader:
    """Return a reader of records whose parts of these names are sections: a key that one lacks has its
    default.

    Digests are left out: they stand for parts of other pieces, each of which checks its own. The reader
    raises ValueError for a part of another kind.
    """

    def read(part: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in part.items():
            if name in sections and value is not None:
                found[name] = sections[name].model_validate(value).model_dump(mode="json")
            elif isinstance(value, Mapping):
                found[name] = read(value)
            elif name not in DIGESTS:
                found[name] = value
        return found

    return read


def piece_lock(out: Path, name: str, wait: bool = True) -> AbstractContextManager[bool]:
    """Keep other processes on the folder `out` from the piece `name` meanwhile; see `file_lock`."""
    return file_lock(make_folder(out / "locks") / name, wait)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object that a piece wrote. Raises RecipeError naming the file."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise RecipeError(f"{path} cannot be read ({error}): remove it, and it is made anew.") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a piece's result, whole or not at all. Raises OutputError."""
    write_file(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
