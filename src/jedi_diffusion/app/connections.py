"""Connections within bounds: how many, in sum and from one client, and how long each may take for its part.

uvicorn waits for ever for the rest of a head or a body, and for a client to take its answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from jedi_diffusion.app.clients import client_of, is_here

FULL = b"503 Service Unavailable", b"retry-after: 5\r\n"
SPARE = 128
"""Open files that are left for everything that is not a connection."""


@dataclass(frozen=True)
class Limits:
    """total, per_client: connections, in sum and from one client. A proxy on this machine speaks for many
    clients, so that an address of this machine may have all of them. head_seconds: for all of a request's
    head, and for the next bytes of its body. body_seconds: for all of the body. write_seconds: for a client
    to take the next bytes of its answer."""

    total: int = 512
    per_client: int = 64
    head_seconds: float = 15.0
    body_seconds: float = 300.0
    write_seconds: float = 60.0


def most_connections() -> int | None:
    """Return how many connections this process has open files for, None where the system has no such
    limit.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if files == resource.RLIM_INFINITY else max(1, files - SPARE)


class Connections:
    """The connections of one server, and which of them wait for a request, the longest first."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._clients: dict[BoundedProtocol, str] = {}
        self._waiting: dict[BoundedProtocol, None] = {}

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def waiting(self) -> int:
        """Connections that have no request now."""
        return len(self._waiting)

    def enter(self, connection: BoundedProtocol, peer: str) -> bool:
        """Count a connection from an address in, if there is room for it or another one, which has sent no
        request, gives way. That spares connections with work in hand, and lets in who says at once what he
        wants."""
        client = client_of(peer)
        own = [each for each, other in self._clients.items() if other == client]
        most = self.limits.total if is_here(peer) else self.limits.per_client
        if len(own) >= most or len(self) >= self.limits.total:
            rivals = self._waiting if len(own) < most else [each for each in self._waiting if each in own]
            longest = next(iter(rivals), None)
            if longest is None:
                return False
            longest.give_way()
        self._clients[connection] = client
        return True

    def wait(self, connection: BoundedProtocol) -> None:
        """Note that a connection has no request now."""
        if connection in self._clients:
            self._waiting[connection] = None

    def work(self, connection: BoundedProtocol) -> None:
        """Note that a connection has a request."""
        self._waiting.pop(connection, None)

    def leave(self, connection: BoundedProtocol) -> None:
        self._clients.pop(connection, None)
        self._waiting.pop(connection, None)

    def protocol(self, **settings: Any) -> BoundedProtocol:
        """Return what uvicorn makes for each connection."""
        return BoundedProtocol(self, **settings)


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a deadline on each part that the client has to do."""

    def __init__(self, connections: Connections, **settings: Any) -> None:
        super().__init__(**settings)
        self._connections = connections
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._body_end: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._connections.enter(self, self.client[0] if self.client else ""):
            self._wait_for_head()
        else:
            self._refuse(*FULL)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._reading, self._writing):
            if timer is not None:
                timer.cancel()
        self._connections.leave(self)
        super().connection_lost(exc)

    def give_way(self) -> None:
        """Make room for another connection."""
        self._connections.leave(self)
        self._refuse(*FULL)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            return  # still a head, whose time runs since its beginning
        if self.cycle is not before:
            self._begin_body()
        self._wait_for_body()

    def on_response_complete(self) -> None:
        answered = self.cycle
        self._wait_for_head()
        super().on_response_complete()  # which may begin a request that has come already
        if self.cycle is not answered:
            self._begin_body()
            self._wait_for_body()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing(-1)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()

    def _begin_body(self) -> None:
        self._connections.work(self)
        self._body_end = self.loop.time() + self._connections.limits.body_seconds

    def _wait_for_head(self) -> None:
        self._connections.wait(self)
        self._set_timer(self._connections.limits.head_seconds)

    def _wait_for_body(self) -> None:
        """Until it is there; the application may take its time afterwards."""
        if self._reading is not None:
            self._reading.cancel()
        if self.cycle.more_body and self._body_end is not None:
            left = self._body_end - self.loop.time()
            self._set_timer(min(self._connections.limits.head_seconds, left))

    def _set_timer(self, seconds: float) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = self.loop.call_later(max(0.0, seconds), self._late)

    def _late(self) -> None:
        if self.transport.is_closing():
            return
        has_begun = self.cycle is not None and not self.cycle.response_complete
        if has_begun and self.flow.read_paused and self._body_end and self.loop.time() < self._body_end:
            self._wait_for_body()  # it is the application that is slow
        elif has_begun and self.cycle.response_started:
            self.transport.abort()
        else:
            self._refuse(b"408 Request Timeout")

    def _watch_writing(self, before: int) -> None:
        """End the connection when nothing has left the buffer since the last look."""
        size = self.transport.get_write_buffer_size()
        if size == before:
            self.transport.abort()
        else:
            seconds = self._connections.limits.write_seconds
            self._writing = self.loop.call_later(seconds, self._watch_writing, size)

    def _refuse(self, status: bytes, headers: bytes = b"") -> None:
        self.transport.write(b"HTTP/1.1 " + status + b"\r\n" + headers + b"connection: close\r\n\r\n")
        self.transport.close()
