"""`jedi data pack`: folders of pictures, or sets in the paper's format, into shards or the paper's format."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from tqdm import tqdm

from jedi_diffusion.cli.data_options import Kind, kind_of, open_place, tell_layout
from jedi_diffusion.errors import DataError, PictureError, UsageError
from jedi_diffusion.options import check_options

if TYPE_CHECKING:
    from jedi_diffusion.data.collection import SetCollection
    from jedi_diffusion.data.folders import Captioned, LeftOut, SubjectFolders
    from jedi_diffusion.data.quarantine import Quarantine
    from jedi_diffusion.data.record import StoredSet
    from jedi_diffusion.data.stored import StoredSets

QUARANTINE = "quarantine.jsonl"
LEFT_OUT = "left_out.jsonl"
SHOWN = 5
"""Files left out that are named on the screen."""


@dataclass(frozen=True)
class PackOptions:
    """Write sets into shards (tars with an index each), or as stacked pictures with captions.

    Pictures become squares: their centre, scaled. A file that cannot be used costs no other: it is listed in
    OUT/quarantine.jsonl. Pictures and captions that are not where they are looked for are listed in
    OUT/left_out.jsonl. Sets that are stacked already are taken over as they are. Of videos and rendered views
    one set each is drawn, for good.
    """

    source: tyro.conf.Positional[str]
    """A folder with a subfolder of pictures for each subject, or with one subject's pictures; or sets in the
    paper's format, or shards."""
    out: str
    """Folder for the result, on disk or at s3://; it must not hold any yet."""
    source_kind: Kind = "auto"
    """What the source is; "auto" tells sets and folders of subjects apart."""
    to: Literal["shards", "stacked"] = "shards"
    """Tars, or a picture and a text file for each set."""
    size: int = 512
    """Side of the square pictures in pixels; a multiple of 8 for jpg."""
    kind: Literal["jpg", "png", "webp"] = "jpg"
    """Format of the stacked pictures; png and webp lose nothing."""
    quality: int = 95
    """Quality of jpg, 1 to 100."""
    largest: int = 16
    """Pictures in a set at most: subjects with more become several sets."""
    name: str | None = None
    """What the source is called in the records; the folder's name if not given."""
    record_names: bool = False
    """Write names of files and of their folders into the records; by default only the subject in words."""
    shard_sets: int = 10_000
    """Sets in a shard at most."""
    shard_mb: int = 1024
    """Megabytes of a shard at most."""
    limit: int | None = None
    """Stop once more files or sets than this cannot be used; what was packed before is kept."""
    seed: int = 0
    """Which frames of a video, which views and backgrounds."""


def run(arguments: list[str]) -> None:
    """Raise JeDiError."""
    given = tyro.cli(PackOptions, args=arguments, prog="jedi data pack")
    check(given)
    from jedi_diffusion.data.shards import ShardWriter
    from jedi_diffusion.data.storage import names_in, open_folder, write_bytes

    folder = open_folder(given.out)
    if any(not name.startswith(".") for name in names_in(folder)):
        raise UsageError(f"{folder} is not empty: choose another folder for --out.")
    with ExitStack() as stack:
        quarantine = stack.enter_context(_quarantine(folder, given.limit))
        sets, left_out = _sets(given, quarantine)
        _tell_left_out(folder, left_out)
        writer = None
        if given.to == "shards":
            writer = stack.enter_context(ShardWriter(folder, given.shard_sets, given.shard_mb * 2**20))
        taken: Counter[int] = Counter()
        try:
            for number, item in enumerate(sets):
                info = item.info if given.record_names else without_names(item.info)
                item = replace(item, key=f"{number:06d}", source=given.name or item.source, info=info)
                if writer:
                    writer.write(item)
                else:
                    for ending, data in item.members().items():
                        write_bytes(f"{folder}/{item.key}.{ending}", data)
                taken[len(item.captions)] += 1
        finally:  # whatever happened, the sets before it are good
            if writer:
                writer.finish()
            if taken:
                shards = f" in {len(writer.finished)} shards" if writer else ""
                pictures = sum(size * count for size, count in taken.items())
                print(f"{taken.total()} sets with {pictures} pictures are in {folder}{shards}")
                print(_counts(folder, pictures, len(left_out), len(quarantine)))
    if not taken:
        reasons = quarantine.reasons()
        first = (
            f" ({len(reasons)} faults in {folder}/{QUARANTINE}; the first: {next(iter(reasons.values()))})"
        )
        raise DataError(f"Nothing in {given.source} can be used{first if reasons else ''}.")


def _counts(folder: str, taken: int, left_out: int, quarantined: int) -> str:
    where = [
        f" ({folder}/{name})" if count else ""
        for name, count in ((LEFT_OUT, left_out), (QUARANTINE, quarantined))
    ]
    return (
        f"Pictures taken: {taken}; files left out: {left_out}{where[0]}; quarantined: {quarantined}{where[1]}"
    )


def _tell_left_out(folder: str, left_out: Sequence[LeftOut]) -> None:
    """Warn of files that people would expect to be packed: the first few by name, all in a record."""
    from jedi_diffusion.data.storage import write_bytes
    from jedi_diffusion.files import json_bytes

    if not left_out:
        return
    lines = (json_bytes({"file": str(each.file), "reason": each.reason}) for each in left_out)
    write_bytes(f"{folder}/{LEFT_OUT}", b"".join(line + b"\n" for line in lines))
    for each in left_out[:SHOWN]:
        print(f"jedi: left out: {each.reason}", file=sys.stderr)
    print(f"jedi: warning: {len(left_out)} files are left out: {folder}/{LEFT_OUT}", file=sys.stderr)


def without_names(info: dict[str, Any]) -> dict[str, Any]:
    """Return a record's provenance without names of folders and files, which can say whom pictures show."""
    return {name: value for name, value in info.items() if name not in ("folder", "files")}


@contextmanager
def _quarantine(folder: str, limit: int | None) -> Iterator[Quarantine]:
    """Yield the quarantine in the folder of the result; a remote one is written there at the end."""
    from jedi_diffusion.data.quarantine import Quarantine
    from jedi_diffusion.data.storage import local_path, write_bytes
    from jedi_diffusion.files import json_bytes

    local = local_path(folder)
    limit = sys.maxsize if limit is None else limit
    quarantine = Quarantine(None if local is None else local / QUARANTINE, limit)
    try:
        yield quarantine
    finally:
        if local is None and len(quarantine):
            lines = (
                json_bytes({"source": source, "item": item, "reason": reason}) + b"\n"
                for (source, item), reason in quarantine.reasons().items()
            )
            write_bytes(f"{folder}/{QUARANTINE}", b"".join(lines))


def check(given: PackOptions) -> None:
    """Raise UsageError for numbers out of range, and for a size that does not go with the format."""
    from jedi_diffusion.data.record import check_blocks

    limits = {
        "size": (16, 4096),
        "quality": (1, 100),
        "largest": (1, 64),
        "shard_sets": (1, 10**7),
        "shard_mb": (1, 10**6),
        "limit": (0, 10**9),
        "seed": (0, 2**62),
    }
    check_options(given, limits)
    check_blocks(given.size, given.kind)


def _sets(given: PackOptions, quarantine: Quarantine) -> tuple[Iterator[StoredSet], list[LeftOut]]:
    """Return the sets, still to be read, and the files of the source that are not looked at."""
    from jedi_diffusion.data.folders import SubjectFolders
    from jedi_diffusion.data.stored import StoredSets

    kind = kind_of(given.source, given.source_kind)
    if kind == "folders":
        folders = SubjectFolders(given.source, given.size)
        tell_layout(folders)
        return _encoded(folders, given, quarantine), folders.left_out()
    if kind == "sets":
        return _taken_over(StoredSets(given.source, quarantine), quarantine), []
    return _drawn(open_place(given.source, kind, quarantine), given, quarantine), []


def _largest(given: PackOptions) -> int:
    """Return how many pictures a set may have, which the size of a file limits too."""
    from jedi_diffusion.data.record import largest_set

    fitting = largest_set(given.size, given.kind)
    if fitting < given.largest:
        print(
            f"jedi: at --size {given.size} a {given.kind} holds at most {fitting} pictures: larger sets are "
            "split.",
            file=sys.stderr,
        )
    return min(given.largest, fitting)


def _drawn(collection: SetCollection, given: PackOptions, quarantine: Quarantine) -> Iterator[StoredSet]:
    """Yield a set of each item, as large as it gets: frames or views by the seed alone, backgrounds too."""
    import numpy as np

    from jedi_diffusion.data.mixture import square_set
    from jedi_diffusion.data.record import StoredSet

    largest = _largest(given)
    for item in tqdm(range(len(collection)), unit="set", file=sys.stderr):
        generator = np.random.default_rng([given.seed, item])
        try:
            drawn = collection.read(item, min(collection.size(item), largest), generator)
            made = square_set(drawn, given.size)
            squares = replace(drawn, pictures=made.pictures, masks=made.masks)
            stored = StoredSet.encode("x", squares, given.kind, given.quality)
        except (DataError, PictureError, UsageError) as error:
            quarantine.add(collection.source, collection.name(item), str(error))
            continue
        yield stored


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

    largest = _largest(given)
    source = given.name or Path(folders.source).resolve().name
    bar = tqdm(total=sum(map(len, folders.subjects)), unit="picture", file=sys.stderr)
    with bar:
        for item, subject in enumerate(folders.subjects):
            count = -(-len(subject) // largest)
            for part in range(count):  # as equal as possible: 17 pictures are 9 and 8, not 16 and 1
                numbers = range(part, len(subject), count)
                opened = {
                    number: square
                    for number in numbers
                    if (square := _square(folders, item, number, given.size, quarantine))
                }
                bar.update(len(numbers))
                if opened:
                    some = replace(folders.joined(item, opened), source=source)
                    yield StoredSet.encode("x", some, given.kind, given.quality)


def _square(
    folders: SubjectFolders, item: int, number: int, size: int, quarantine: Quarantine
) -> Captioned | None:
    """Return one picture of a subject as a square; None if one of its files cannot be used."""
    from jedi_diffusion.data.folders import UnusableFileError
    from jedi_diffusion.data.mixture import square_mask
    from jedi_diffusion.pictures import fit_square

    try:
        found = folders.subjects[item].open(number)
    except UnusableFileError as error:
        quarantine.add(folders.source, str(error.file), str(error))
        return None
    mask = None if found.mask is None else square_mask(found.mask, size)
    return found._replace(picture=fit_square(found.picture, size), mask=mask)
