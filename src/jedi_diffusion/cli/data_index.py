"""`jedi data index`: the indexes that make tars of others, or changed ones, readable at random."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from jedi_diffusion.errors import DataError, UsageError


@dataclass(frozen=True)
class IndexOptions:
    """Write the index of each tar beside it, x.tar.index.jsonl: places, sizes and checksums of its files.

    Tars come from `jedi data pack`, img2dataset, video2dataset, or any tool that writes WebDataset's layout.
    Indexes that fit their tar are kept.
    """

    place: tyro.conf.Positional[str]
    """A local tar, a folder with some, or x/{00000..00041}.tar."""
    again: bool = False
    """Read all tars again, also those with an index that fits."""


def run(arguments: list[str]) -> None:
    """Raise JeDiError; tars that are broken are named after all others are done."""
    given = tyro.cli(IndexOptions, args=arguments, prog="jedi data index")
    from jedi_diffusion.data.storage import tars_of

    if "://" in given.place:
        raise UsageError(f"{given.place} is not local: index tars before they are uploaded.")
    samples = written = 0
    broken: list[str] = []
    tars = tars_of(given.place)
    for tar in tqdm(tars, unit="tar", file=sys.stderr):
        try:
            count, is_new = _indexed(tar, given.again)
        except DataError as error:
            tqdm.write(f"jedi: {error}", file=sys.stderr)
            broken.append(tar)
            continue
        samples, written = samples + count, written + is_new
    print(f"{samples} samples in {len(tars) - len(broken)} tars; {written} indexes written")
    if broken:
        raise DataError(f"{len(broken)} of {len(tars)} tars cannot be indexed: {', '.join(broken)}.")


def _indexed(tar: str, again: bool) -> tuple[int, bool]:
    """Return samples of a tar, and whether its index had to be written."""
    from jedi_diffusion.data.shards import build_index, load_index, save_index

    if not again:
        with suppress(DataError):  # missing, stale or damaged: what this command is for
            return len(load_index(tar)), False
    index = build_index(Path(tar))
    save_index(Path(tar), index)
    return len(index), True
