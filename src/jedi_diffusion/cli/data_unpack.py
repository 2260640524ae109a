"""`jedi data unpack`: shards, or the paper's format, back into pictures that people look at."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from tqdm import tqdm

from jedi_diffusion.errors import DataError, PictureError, UsageError
from jedi_diffusion.files import make_folder, slug, write_file

if TYPE_CHECKING:
    from jedi_diffusion.data.record import StoredSet

QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True)
class UnpackOptions:
    """Write the sets of shards as folders of pictures, one a set, or as stacked pictures with captions.

    `jedi data pack` reads either again. What cannot be read is left out and listed in OUT/quarantine.jsonl.
    """

    source: tyro.conf.Positional[str]
    """Shards (a folder, x.tar, x/{00000..00041}.tar, s3://, https://), or a folder of stacked sets."""
    out: str
    """Folder for the result; it must be empty."""
    to: Literal["folders", "stacked"] = "folders"
    """A folder of PNGs for each set, or a picture and a text file for each set."""
    first: int = 0
    """Number of the first set."""
    sets: int | None = None
    """How many; all if not given."""
    limit: int = 100
    """Stop if more sets than this cannot be used."""


def run(arguments: list[str]) -> None:
    """Raise JeDiError."""
    given = tyro.cli(UnpackOptions, args=arguments, prog="jedi data unpack")
    if given.first < 0 or (given.sets is not None and given.sets < 1) or given.limit < 0:
        raise UsageError("--first and --limit are 0 or more, --sets is 1 or more.")
    from jedi_diffusion.data.quarantine import Quarantine
    from jedi_diffusion.data.stored import StoredSets

    folder = make_folder(given.out)
    if any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty: choose another folder for --out.")
    quarantine = Quarantine(folder / QUARANTINE, given.limit)
    sets = StoredSets(given.source, quarantine)
    last = len(sets) if given.sets is None else min(len(sets), given.first + given.sets)
    written = 0
    for item in tqdm(range(given.first, last), unit="set", file=sys.stderr):
        try:
            _write(folder, f"{item:06d}", sets.stored(item), sets.name(item), given.to)
        except (DataError, PictureError) as error:
            quarantine.add(sets.source, sets.name(item), str(error))
            continue
        written += 1
    print(f"{written} sets are in {folder}")
    if len(quarantine):
        print(f"{len(quarantine)} could not be used: {folder / QUARANTINE}")


def _write(folder: Path, number: str, stored: StoredSet, name: str, to: str) -> None:
    from jedi_diffusion.data.folders import write_subject

    decoded = stored.decode(name)  # also where it is copied: what cannot be decoded is not handed on
    if to == "folders":
        write_subject(folder / f"{number}-{slug(stored.subject or 'set')}", decoded)
        return
    for ending, data in replace(stored, key=number).members().items():
        write_file(folder / f"{number}.{ending}", data)
