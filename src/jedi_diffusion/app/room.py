"""Room in bytes that clients share: nobody gets more than half of it."""

from __future__ import annotations

import threading
from collections import Counter

SHARE = 2
"""One client gets at most this fraction, one half."""


class Room:
    """`most` bytes in sum."""

    def __init__(self, most: int = 2**30) -> None:
        self.most = most
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        return self._held.total()

    def take(self, client: str, size: int) -> bool:
        """Return whether there is room for that many more bytes; they are then taken."""
        with self._lock:
            own = self._held[client] + size
            if self.held + size > self.most or own > self.most // SHARE:
                return False
            self._held[client] = own
            return True

    def give_back(self, client: str, size: int) -> None:
        """Let go of bytes that were taken."""
        with self._lock:
            self._held[client] -= size
            if self._held[client] <= 0:
                del self._held[client]
