"""`jedi data pack`: folders of pictures, or sets in the paper's format, into shards or the paper's format."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from tqdm import tqdm

from jedi_diffusion.cli.data_options import Kind, check_range, open_place
from jedi_diffusion.errors import DataError, PictureError, UsageError

if TYPE_CHECKING:
    from jedi_diffusion.data.collection import SetCollection
    from jedi_diffusion.data.folders import SubjectFolders
    from jedi_diffusion.data.quarantine import Quarantine
    from jedi_diffusion.data.record import StoredSet, SubjectSet
    from jedi_diffusion.data.stored import StoredSets

QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True)
class PackOptions:
    """Write sets into shards (tars with an index each), or as stacked pictures with captions.

    Pictures become squares: their centre, scaled. What cannot be read is left out and listed in
    OUT/quarantine.jsonl. Sets that are stacked already are taken over as they are. Of videos and rendered
    views one set each is drawn, for good.
    """

    source: tyro.conf.Positional[str]
    """A folder with a subfolder of pictures for each subject; or sets in the paper's format, or shards."""
    out: str
    """Folder for the result, on disk or at s3://; it must not hold any yet."""
    source_kind: Kind = "auto"
    """What the source is; "auto" tells sets and folders of subjects apart."""
    to: Literal["shards", "stacked"] = "shards"
    """Tars, or a picture and a text file for each set."""
    size: int = 512
    """Side of the square pictures in pixels."""
    kind: Literal["jpg", "png", "webp"] = "jpg"
    """Format of the stacked pictures."""
    quality: int = 95
    """Quality of jpg and webp, 1 to 100."""
    largest: int = 16
    """Pictures in a set at most: subjects with more become several sets."""
    name: str | None = None
    """What the source is called in the records; the folder's name if not given."""
    shard_sets: int = 10_000
    """Sets in a shard at most."""
    shard_mb: int = 1024
    """Megabytes of a shard at most."""
    limit: int = 100
    """Stop if more pictures or sets than this cannot be used."""
    seed: int = 0
    """Which frames of a video, which views and backgrounds."""


def run(arguments: list[str]) -> None:
    """Raises JeDiError."""
    given = tyro.cli(PackOptions, args=arguments, prog="jedi data pack")
    check(given)
    from jedi_diffusion.data.shard_writer import ShardWriter
    from jedi_diffusion.data.storage import names_in, open_folder, write_bytes

    folder = open_folder(given.out)
    if any(not name.startswith(".") for name in names_in(folder)):
        raise UsageError(f"{folder} is not empty: choose another folder for --out.")
    sets = pictures = 0
    with ExitStack() as stack:
        quarantine = stack.enter_context(_quarantine(folder, given.limit))
        writer = None
        if given.to == "shards":
            writer = stack.enter_context(ShardWriter(folder, given.shard_sets, given.shard_mb * 2**20))
        for number, item in enumerate(_sets(given, quarantine)):
            item = replace(item, key=f"{number:06d}", source=given.name or item.source)
            if writer:
                writer.write(item)
            else:
                for ending, data in item.members().items():
                    write_bytes(f"{folder}/{item.key}.{ending}", data)
            sets, pictures = sets + 1, pictures + len(item.captions)
    if not sets:
        raise DataError(f"Nothing in {given.source} can be used; {folder}/{QUARANTINE} says why.")
    shards = f" in {len(writer.finished)} shards" if writer else ""
    print(f"{sets} sets with {pictures} pictures are in {folder}{shards}")
    if len(quarantine):
        print(f"{len(quarantine)} could not be used: {folder}/{QUARANTINE}")


@contextmanager
def _quarantine(folder: str, limit: int) -> Iterator[Quarantine]:
    """The quarantine in the folder of the result; a remote one is written there at the end."""
    from jedi_diffusion.data.quarantine import Quarantine
    from jedi_diffusion.data.storage import local_path, write_bytes

    local = local_path(folder)
    quarantine = Quarantine(None if local is None else local / QUARANTINE, limit)
    try:
        yield quarantine
    finally:
        if local is None and len(quarantine):
            lines = [
                json.dumps({"source": source, "item": item, "reason": reason}, ensure_ascii=False)
                for (source, item), reason in quarantine.reasons().items()
            ]
            write_bytes(f"{folder}/{QUARANTINE}", "\n".join([*lines, ""]).encode())


def check(given: PackOptions) -> None:
    """Raises UsageError for numbers out of range."""
    limits = {
        "size": (16, 4096),
        "quality": (1, 100),
        "largest": (1, 64),
        "shard_sets": (1, 10**7),
        "shard_mb": (1, 10**6),
        "limit": (0, 10**9),
        "seed": (0, 2**62),
    }
    for name, (low, high) in limits.items():
        check_range("--" + name.replace("_", "-"), getattr(given, name), low, high)


def _sets(given: PackOptions, quarantine: Quarantine) -> Iterator[StoredSet]:
    from jedi_diffusion.data.folders import SubjectFolders, holds_subjects
    from jedi_diffusion.data.stored import StoredSets

    kind = given.source_kind
    if kind == "auto":
        kind = "folders" if holds_subjects(given.source) else "sets"
    if kind == "folders":
        yield from _encoded(SubjectFolders(given.source, given.size), given, quarantine)
    elif kind == "sets":
        yield from _taken_over(StoredSets(given.source, quarantine), quarantine)
    else:
        yield from _drawn(open_place(given.source, kind, quarantine), given, quarantine)


def _drawn(collection: SetCollection, given: PackOptions, quarantine: Quarantine) -> Iterator[StoredSet]:
    """A set of each item, as large as it gets: frames or views by the seed alone, backgrounds too."""
    import numpy as np

    from jedi_diffusion.data.record import StoredSet
    from jedi_diffusion.data.transforms import square_set

    for item in tqdm(range(len(collection)), unit="set", file=sys.stderr):
        generator = np.random.default_rng([given.seed, item])
        try:
            drawn = collection.read(item, min(collection.size(item), given.largest), generator)
            made = square_set(drawn, given.size)
        except (DataError, PictureError) as error:
            quarantine.add(collection.source, collection.name(item), str(error))
            continue
        squares = replace(drawn, pictures=made.pictures, masks=made.masks)
        yield StoredSet.encode("x", squares, given.kind, given.quality)


def _taken_over(sets: StoredSets, quarantine: Quarantine) -> Iterator[StoredSet]:
    for item in tqdm(range(len(sets)), unit="set", file=sys.stderr):
        try:
            stored = sets.stored(item)
            stored.decode(sets.name(item))
        except (DataError, PictureError) as error:
            quarantine.add(sets.source, sets.name(item), str(error))
            continue
        yield stored


def _encoded(folders: SubjectFolders, given: PackOptions, quarantine: Quarantine) -> Iterator[StoredSet]:
    from jedi_diffusion.data.record import StoredSet

    for item in tqdm(range(len(folders)), unit="subject", file=sys.stderr):
        squares = [
            square
            for number in range(folders.size(item))
            if (square := _square(folders, item, number, given.size, quarantine))
        ]
        count = -(-len(squares) // given.largest)
        for part in range(count):  # as equal as possible: 17 pictures are 9 and 8, not 16 and 1
            some = _joined(squares[part::count])
            source = given.name or Path(folders.source).resolve().name
            yield StoredSet.encode("x", replace(some, source=source), given.kind, given.quality)


def _square(
    folders: SubjectFolders, item: int, number: int, size: int, quarantine: Quarantine
) -> SubjectSet | None:
    """One picture of a subject as a square set of one; None if it cannot be used."""
    from jedi_diffusion.data.transforms import square_set

    try:
        alone = folders.pictures(item, [number])
    except (DataError, PictureError) as error:
        quarantine.add(folders.source, f"{folders.name(item)}, picture {number + 1}", str(error))
        return None
    made = square_set(alone, size)
    return replace(alone, pictures=made.pictures, masks=made.masks)


def _joined(parts: list[SubjectSet]) -> SubjectSet:
    """Sets of one picture of the same subject as one set."""
    return replace(
        parts[0],
        pictures=tuple(part.pictures[0] for part in parts),
        captions=tuple(part.captions[0] for part in parts),
        masks=tuple(part.masks[0] for part in parts if part.masks) or None,
        info={**parts[0].info, "files": [file for part in parts for file in part.info["files"]]},
    )
