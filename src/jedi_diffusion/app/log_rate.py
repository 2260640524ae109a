"""A log that visitors cannot fill: at most so many lines a minute, and then how many were left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TextIO

MINUTE = 60.0


class BoundedLog:
    """A text stream in front of another, for `sys.stderr`: what libraries print passes through it too.

    lines: how many pass in a minute; the last of a minute's lines says how many did not.
    """

    def __init__(self, stream: TextIO, lines: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._lines, self._clock = stream, lines, clock
        self._lock = threading.Lock()
        self._minute, self._passed, self._dropped = clock(), 0, 0

    def write(self, text: str) -> int:
        with self._lock:
            if self._clock() - self._minute >= MINUTE:
                self._report()
                self._minute, self._passed = self._clock(), 0
            for line in text.splitlines(keepends=True):
                self._pass(line)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return self._stream.encoding

    def close(self) -> None:
        """Say what was left out since the last line that said so; the stream behind stays open."""
        with self._lock:
            self._report()

    def _pass(self, line: str) -> None:
        """Take a line, or a part of one: a line that has begun is passed or left out as a whole."""
        if self._passed < self._lines:
            self._stream.write(line)
            self._passed += line.endswith("\n")
        else:
            self._dropped += line.endswith("\n")

    def _report(self) -> None:
        if self._dropped:
            self._stream.write(f"jedi: {self._dropped} lines of the log were left out.\n")
            self._stream.flush()
            self._dropped = 0
