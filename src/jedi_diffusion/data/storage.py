"""Bytes of files wherever they are: local paths, https:// and s3:// by the same functions, through fsspec.

Each call looks its file system up anew: fsspec keeps one a process, so that readers survive a fork.
Credentials and endpoints come from the environment, as the stores' own tools read them. What is written
appears under its name when it is whole: files by a rename, objects by the store's own rule.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jedi_diffusion.errors import DataError, JeDiError, OutputError, UsageError
from jedi_diffusion.files import is_hidden, make_folder, natural_order, write_file

WAITS = (0.2, 1.0, 3.0)
"""Seconds between attempts at a remote file."""

NO_FOLDERS = {
    r"::": "one place inside another",
    r"\{\d+\.\.\d+\}": "several tars",
    r"\.tar/*$": "one tar",
}
"""Names that cannot be those of a folder of results, and what they mean elsewhere."""
OF_THE_EXTRA = ("http", "https", "s3", "s3a")
"""Protocols whose packages come with the extra `data`."""
COUNTED = re.compile(r"(.*)\{(\d+)\.\.(\d+)\}(.*)")


def read_bytes(url: str, start: int = 0, end: int | None = None) -> bytes:
    """Return bytes `start` to `end` (exclusive; None: all) of a file. Remote faults are tried again, see
    WAITS.

    Raises DataError that gives the file: it is missing, cannot be read, or gives another number of bytes.
    """
    system, path = _system(url)
    if end is None:
        return bytes(_tried(url, lambda: system.cat_file(path)))
    data = bytes(_tried(url, lambda: system.cat_file(path, start=start, end=end)))
    if len(data) != end - start:
        raise DataError(
            f"{url} gave {len(data)} bytes where {end - start} were asked for (from byte {start}): it is cut "
            "off, or its server does not know byte ranges."
        )
    return data


def length_of(url: str) -> int:
    """Return the length of a file in bytes. Raises DataError that gives the file."""
    system, path = _system(url)
    length = _tried(url, lambda: system.info(path)).get("size")
    if length is None:
        raise DataError(f"The server of {url} does not say how long it is.")
    return int(length)


def stamp_of(url: str) -> str:
    """Return what the store says of a file that changes with its content: its length and its tag or time.

    Raises DataError that gives the file.
    """
    system, path = _system(url)
    told = _tried(url, lambda: system.info(path))
    kept = ("size", "ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime")
    return " ".join(f"{name}={told[name]}" for name in kept if told.get(name) is not None)


def files_below(folder: str, endings: Sequence[str]) -> list[str]:
    """Return every file at any depth of a folder with one of these endings, in natural order, hidden ones
    apart.

    Raises DataError if the folder is missing.
    """
    system, path = _system(folder)
    if not _tried(folder, lambda: system.isdir(path)):
        raise DataError(f"There is no folder {folder}.")
    found = _tried(folder, lambda: system.find(path))
    wanted = [
        each
        for each in sorted(found, key=natural_order)
        if each.lower().endswith(tuple(endings))
        and not any(map(is_hidden, each[len(path.rstrip("/")) :].strip("/").split("/")))
    ]
    local = "file" in _protocols(system)
    return wanted if local else [system.unstrip_protocol(each) for each in wanted]


def holds_tars(place: str) -> bool:
    """Return whether a place names tars (see `tars_of`), or is a folder with some."""
    if place.endswith(".tar") or re.fullmatch(COUNTED, place) or place.startswith(("http://", "https://")):
        return True
    return bool(files_below(place, [".tar"]))


def tars_of(place: str) -> list[str]:
    """Return the tars that a place means: `x/{00000..00041}.tar` counts them, `x.tar` is one, a folder has
    some.

    Raises DataError if there are none.
    """
    counted = re.fullmatch(COUNTED, place)
    if counted:
        before, first, last, after = counted.groups()
        if int(last) < int(first):
            raise UsageError(f"{place} counts down: write the smaller number first.")
        return [f"{before}{number:0{len(first)}d}{after}" for number in range(int(first), int(last) + 1)]
    if place.endswith(".tar"):
        return [place]
    if place.startswith(("http://", "https://")):
        raise UsageError(f"{place} cannot be listed: name its tars, as in {place}/{{00000..00041}}.tar")
    found = files_below(place, [".tar"])  # a shard that is still being written has a hidden name
    if not found:
        raise DataError(f"There are no tars in {place}.")
    return found


def local_path(place: str) -> Path | None:
    """Return the path of a place on this machine; None for one that is reached by a protocol."""
    if place.startswith("file://"):
        return Path(_system(place)[1])
    return None if "://" in place else Path(place)


def names_in(folder: str) -> list[str]:
    """Return names of what a folder holds, in natural order; none where there is no folder.

    Raises DataError.
    """
    system, path = _system(folder)
    system.invalidate_cache()
    if not _tried(folder, lambda: system.isdir(path)):
        return []
    found = _tried(folder, lambda: system.ls(path, detail=False))
    return sorted((each.rstrip("/").rpartition("/")[2] for each in found), key=natural_order)


def exists(url: str) -> bool:
    """Return whether there is a file, now. Raises DataError where that cannot be told."""
    system, path = _system(url)
    system.invalidate_cache()  # other programs write too
    return bool(_tried(url, lambda: system.exists(path)))


def open_folder(folder: str) -> str:
    """Return the folder without a slash at its end, made where it is local and missing.

    Raises OutputError if nothing can be put there, UsageError for a web server.
    """
    if folder.startswith(("http://", "https://")):
        raise UsageError(f"{folder} is on a web server, which takes no files: write to a folder or to s3://.")
    means = next((meaning for pattern, meaning in NO_FOLDERS.items() if re.search(pattern, folder)), None)
    if means is not None:
        raise UsageError(f"{folder} would mean {means} to whoever reads it; choose another name.")
    local = local_path(folder)
    if local is not None:
        return str(make_folder(local))
    names_in(folder)  # a wrong name or missing credentials are said before the work, not after it
    return folder.rstrip("/")


def write_bytes(url: str, data: bytes) -> None:
    """Write a file in one step. Raises OutputError."""
    local = local_path(url)
    if local is not None:
        write_file(local, data)
        return
    system, path = _system(url)
    _tried(url, lambda: system.pipe_file(path, data), writing=True)


def scratch_file(url: str) -> Path:
    """Return a path of this machine, not taken yet, for what `publish` will put at `url`."""
    local = local_path(url)
    folder = Path(tempfile.gettempdir()) if local is None else local.parent
    return folder / f".{url.rpartition('/')[2][:80]}.{secrets.token_hex(6)}"


def publish(scratch: Path, url: str) -> None:
    """Put a whole file that was written to `scratch_file(url)` in its place. Raises OutputError."""
    local = local_path(url)
    if local is None:
        system, path = _system(url)
        _tried(url, lambda: system.put_file(str(scratch), path), writing=True)
        scratch.unlink()
        return
    try:
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, local)
    except OSError as error:
        raise OutputError(f"{url} cannot be written: {error.strerror or error}.") from error


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        comes_with_extra = url.partition("://")[0] in OF_THE_EXTRA
        how = "pip install 'jedi-diffusion[data]'" if comes_with_extra else str(error).rstrip(".")
        raise UsageError(f"{url} needs a package that is not here: {how}.") from error
    except ValueError as error:
        raise UsageError(f"{url} cannot be read: {error}.") from error
    except Exception as error:  # some clients connect at once, and raise errors of their own
        raise DataError(f"{url} cannot be reached: {error or type(error).__name__}.") from error
    return system, path


def _tried(url: str, call: Any, writing: bool = False) -> Any:
    """Return what the call returns; remote faults are tried again, see WAITS.

    Raises DataError or OutputError.
    """
    fault: type[JeDiError] = OutputError if writing else DataError
    done = "written" if writing else "read"
    remote = local_path(url) is None
    for wait in (*(WAITS if remote else ()), None):
        try:
            return call()
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = "is in a place that does not exist" if writing else "does not exist"
            raise fault(f"{url} {missing}.") from error
        except PermissionError as error:
            raise fault(f"{url} may not be {done}: permission is denied.") from error
        # Clients raise their own errors, not only OSError: aiohttp's, botocore's, timeouts.
        except Exception as error:
            if wait is None:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise fault(f"{url} cannot be {done}: {reason}.") from error
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")
