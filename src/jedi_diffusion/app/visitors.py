"""What the visitors of the page hold in memory, within bounds: the least recently used gives way."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from jedi_diffusion.app.session import Session


@dataclass
class Visitor:
    client: str
    session: Session


@dataclass
class Visitors:
    """The sessions that hold photos, the least recently used first.

    max_bytes: of their photos in sum. max_sessions: how many may hold any. Beyond them the client that holds
    most loses the photos that it has not used for longest, so that nobody pushes out others by coming often.
    """

    max_bytes: int = 2**30
    max_sessions: int = 500
    _visitors: dict[int, Visitor] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def bytes(self) -> int:
        """Memory that photos hold."""
        return sum(each.session.bytes for each in self._visitors.values())

    def note(self, session: Session, client: str) -> None:
        """Note that a session of a client has been used; its photos may be others than before."""
        with self._lock:
            self._visitors.pop(id(session), None)
            if session.photos:
                self._visitors[id(session)] = Visitor(client, session)
            while self.bytes > self.max_bytes or len(self._visitors) > self.max_sessions:
                self._drop_one()

    def leave(self, session: Session) -> None:
        """Forget a visitor who is gone."""
        with self._lock:
            self._visitors.pop(id(session), None)

    def _drop_one(self) -> None:
        held: Counter[str] = Counter()
        for each in self._visitors.values():
            held[each.client] += each.session.bytes
        ((most, _),) = held.most_common(1)
        own = [key for key, each in self._visitors.items() if each.client == most]
        dropped = self._visitors.pop(own[0])
        dropped.session.give_photos(())
        dropped.session.has_lost_photos = True
