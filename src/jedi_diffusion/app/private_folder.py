"""A temporary folder that no other user can read, and that does not outlive its server, however that ends."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "jedi-page-"
LOCK = "in-use.lock"
"""File in each folder that its server holds locked; the system lets go of it when the server is killed."""
SETTLED = 60.0
"""Seconds after which a folder without a lock is not one that is just being made."""


class PrivateFolder:
    """Made empty, with mode 700. Folders that killed servers left behind are deleted first."""

    def __init__(self) -> None:
        remove_abandoned()
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        self.path = Path(self._folder.name).resolve()
        self._lock = FileLock(self.path / LOCK, thread_local=False)
        self._lock.acquire()

    def close(self) -> None:
        """Delete the folder and all that is in it."""
        self._lock.release()
        self._folder.cleanup()


def remove_abandoned() -> None:
    """Delete this user's folders whose servers no longer run."""
    own = getattr(os, "geteuid", lambda: 0)()
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            status = folder.lstat()
            is_own = status.st_uid == own and folder.is_dir() and not folder.is_symlink()
            is_abandoned = is_own and _is_abandoned(folder)
        except OSError:
            continue  # another server has deleted it meanwhile
        if is_abandoned:
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    if not (folder / LOCK).is_file():
        return time.time() - folder.lstat().st_mtime > SETTLED
    try:
        with FileLock(folder / LOCK, timeout=0, preserve_lock_file=True):
            return True
    except Timeout:
        return False
