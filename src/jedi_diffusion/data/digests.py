"""What a training reads, recorded when it begins, so that it is not continued on other data.

The record is JSON lines, one for each file or shard: `source`, `file`, `digest`, and the `size` and time
`modified` of local files, by which those that have not been touched since need not be read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from jedi_diffusion.data.collection import SetCollection
from jedi_diffusion.data.storage import local_path, stamp_of
from jedi_diffusion.errors import DataError, RecipeError
from jedi_diffusion.files import json_bytes, write_file

THREADS = 8


@dataclass(frozen=True)
class Digest:
    """One file or shard of a source; size in bytes and modified in nanoseconds, 0 where they do not count."""

    source: str
    file: str
    digest: str
    size: int = 0
    modified: int = 0


def check_unchanged(record: Path, sources: Sequence[SetCollection], begun: bool) -> None:
    """Compare the sources with the record of a training that has `begun`; else write the record.

    Also written where a training of an older version has none. Raises RecipeError that names the first file
    which is gone, new or changed, DataError for one that cannot be read, OutputError.
    """
    known = _read(record) if begun and record.exists() else None
    found = _digests(sources, {} if known is None else known)
    if known is None:
        write_file(record, b"".join(json_bytes(asdict(each)) + b"\n" for each in found.values()))
        return
    faults = [f"{file} is gone" for source, file in known if (source, file) not in found]
    for (source, file), each in found.items():
        before = known.get((source, file))
        if before is None:
            faults.append(f"{file} is new")
        elif before.digest != each.digest:
            faults.append(f"{file} has changed")
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise RecipeError(
            f"{record.parent} was trained on other data than there is now: {faults[0]}{more}. Put the data "
            "back, or choose another folder for --out."
        )


def _digests(
    sources: Sequence[SetCollection], known: dict[tuple[str, str], Digest]
) -> dict[tuple[str, str], Digest]:
    parts = [(each.source, file, digest) for each in sources for file, digest in each.parts()]

    def digest(part: tuple[str, str, str | None]) -> Digest:
        source, file, told = part
        if told is not None:
            return Digest(source, file, told)
        path = local_path(file)
        if path is None:
            return Digest(source, file, stamp_of(file))
        return _of_file(source, file, path, known.get((source, file)))

    with ThreadPoolExecutor(THREADS) as pool:
        return {(each.source, each.file): each for each in pool.map(digest, parts)}


def _of_file(source: str, file: str, path: Path, known: Digest | None) -> Digest:
    try:
        found = os.stat(path)
        if known is not None and (known.size, known.modified) == (found.st_size, found.st_mtime_ns):
            return known
        with path.open("rb") as data:
            digest = hashlib.file_digest(data, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    return Digest(source, file, digest, found.st_size, found.st_mtime_ns)


def _read(record: Path) -> dict[tuple[str, str], Digest]:
    return {(each.source, each.file): each for each in _lines(record)}


def _lines(record: Path) -> Iterator[Digest]:
    try:
        for line in record.read_bytes().split(b"\n")[:-1]:
            yield Digest(**json.loads(line))
    except (OSError, ValueError, TypeError) as error:
        raise RecipeError(
            f"{record}, which says what the run was trained on, cannot be read ({error}): choose another "
            "folder for --out."
        ) from error
