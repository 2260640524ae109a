"""A log of unusable items: bad data neither stops a run nor goes unnoticed."""

from __future__ import annotations

import json
import os
from pathlib import Path

from jedi_diffusion.errors import DataError, OutputError
from jedi_diffusion.files import json_bytes


class Quarantine:
    """A JSON lines file of items that cannot be used: source, item, reason, and what took its place.

    Several processes and later runs share one file. Each item is counted once. More than `limit` of them
    are no accident any more: `add` then raises DataError. Without a path, the record is kept in memory.
    """

    def __init__(self, path: str | Path | None = None, limit: int = 100) -> None:
        self.path = None if path is None else Path(path)
        self.limit = limit
        self._reasons: dict[tuple[str, str], str] = {}
        self._read = 0  # bytes of the file that are in `_reasons`

    def __len__(self) -> int:
        """Return items recorded, by this process and by others."""
        self._update()
        return len(self._reasons)

    def reasons(self) -> dict[tuple[str, str], str]:
        """Return the reason for each (source, item). Raises DataError if the file holds something else."""
        self._update()
        return dict(self._reasons)

    def _update(self) -> None:
        """Read what was added to the file since. Raises DataError."""
        if self.path is None or not self.path.exists():
            return
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                added = file.read()
            whole = added.rfind(b"\n") + 1  # behind it: a line that another process is writing now
            for line in added[:whole].split(b"\n")[:-1]:
                record = json.loads(line)
                self._reasons.setdefault((record["source"], record["item"]), record["reason"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path} is no quarantine that can be read: name another file.") from error
        self._read += whole

    def add(self, source: str, item: str, reason: str, replacement: str | None = None) -> None:
        """Record an item, unless it is recorded already. Raises DataError above the limit, OutputError."""
        self._update()
        if (source, item) in self._reasons:
            return
        self._reasons[source, item] = reason
        record = {"source": source, "item": item, "reason": reason, "replacement": replacement}
        if self.path is not None:
            self._append(json_bytes(record) + b"\n")
        if len(self._reasons) > self.limit:
            where = f" They are listed in {self.path}." if self.path else ""
            raise DataError(
                f"{len(self._reasons)} items of the training data cannot be used, more than the limit of "
                f"{self.limit}; the last: {reason}{where}"
            )

    def _append(self, line: bytes) -> None:
        """One write to a file opened for appending: lines of several processes do not mix."""
        assert self.path is not None
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(file, line)
            finally:
                os.close(file)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}.") from error
