"""Writing results so that a reader never meets half a file, and an older good one survives a full disk."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jedi_diffusion.errors import OutputError


def write_file(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` in one step: into a temporary file beside it, flushed to disk, then renamed.

    Raises OutputError with the path and the reason (disk full, read-only, not a folder); what was at `path`
    before is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # gone after the rename; a leftover would fill the disk further
            os.unlink(temporary)


def make_folder(path: str | Path) -> Path:
    """The folder `path`, made with its parents where missing, after a trial that files can be made in it.

    Raises OutputError with the path and the reason.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OutputError(f"The folder {path} cannot be written to: {error.strerror or error}.") from error


@contextmanager
def file_lock(path: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock file `path` between processes: True once it is held, False where another process has it
    and `wait` is not set. A killed process holds nothing.

    Raises OutputError where the file cannot be made, or its file system has no locks.
    """
    import fcntl

    try:
        file = path.open("w")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        except OSError as error:
            raise OutputError(f"{path} cannot be locked: {error.strerror or error}.") from error
        yield held


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` to fill; on leaving it takes the place of `path`.

    The older folder is moved aside, not emptied, so that `path` is whole at any moment but that between two
    renames. If filling fails, `path` is as it was. Raises OutputError with the path and the reason.
    """
    partial, replaced = (path.with_name(f".{path.name}-{state}") for state in ("partial", "replaced"))
    try:
        for left in (partial, replaced):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            path.rename(replaced)
        partial.rename(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        for left in (partial, replaced):
            shutil.rmtree(left, ignore_errors=True)
