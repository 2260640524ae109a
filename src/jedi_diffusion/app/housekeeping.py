"""Keeps folders tidy: below a number of bytes, where the oldest files go first, and again and again."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path

logger = logging.getLogger(__name__)

SECONDS = 10.0
"""Between two looks."""


def trim(folder: Path, most: int, spared: Collection[Path] = ()) -> None:
    """Delete the oldest files below the folder until at most `most` bytes are left, but for the files and
    folders that are spared. Files without any bytes, which gradio leaves behind, go too."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(place, name) not in spared]
        for name in names:
            path = Path(place, name)
            try:
                status = path.stat()
            except OSError:
                continue  # gone meanwhile
            found.append((status.st_mtime, status.st_size, path))
    held = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if path not in spared and (held > most or not size):
            path.unlink(missing_ok=True)
            held -= size


class Housekeeping:
    """Calls functions from time to time, in a thread of its own, until it is closed."""

    def __init__(self, *chores: Callable[[], None], seconds: float = SECONDS) -> None:
        self._chores, self._seconds = chores, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jedi-housekeeping", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            for chore in self._chores:
                try:
                    chore()
                except OSError:
                    logger.exception("Files of the page could not be tidied up.")
