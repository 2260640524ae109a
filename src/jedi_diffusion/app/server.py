"""From an application to a server that listens: sockets, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import uvicorn

from jedi_diffusion.app.connections import Connections, Limits
from jedi_diffusion.app.engine import Engine
from jedi_diffusion.errors import OutputError, UsageError

PORTS_TRIED = 20
BACKLOG = 64
"""Connections that wait to be taken in, and that asyncio takes in at once: these have open files before
`Connections` sees them."""


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes any that is free. Raises UsageError, OutputError."""
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is {port}, but must lie between 0 (any free one) and 65535.")
    try:
        return _bound(host, port)
    except socket.gaierror as error:
        raise UsageError(f"--host {host} is not a name or address of this machine.") from error
    except PermissionError as error:
        raise OutputError(
            f"Port {port} needs rights that this user does not have; take one above 1023."
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--host {host} is not an address of this machine.") from error
        if error.errno != errno.EADDRINUSE:
            raise OutputError(f"{host} port {port} cannot be listened on: {error.strerror}.") from error
        raise OutputError(
            f"Port {port} is taken by another program; try --port {_free(host, port)}."
        ) from error


def _bound(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _free(host: str, port: int) -> int:
    """Return a port near the given one that is free now, 0 (any) if none is."""
    for other in range(port + 1, min(port + PORTS_TRIED, 65536)):
        try:
            _bound(host, other).close()
        except OSError:
            continue
        return other
    return 0


class Server(uvicorn.Server):
    """Ends in order: no new jobs, `grace` seconds for those that there are, then what is left is returned.

    limits: of its connections.
    """

    def __init__(self, app: Any, engine: Engine, grace: float = 30.0, limits: Limits | None = None) -> None:
        self.open_connections = Connections(limits)
        super().__init__(
            uvicorn.Config(
                app,
                http=self.open_connections.protocol,  # type: ignore[arg-type]
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                ws="none",
                backlog=BACKLOG,
                timeout_graceful_shutdown=int(grace) + 10,
            )
        )
        self._engine, self._grace = engine, grace

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the server once SIGINT or SIGTERM came or `should_exit` is set; a second SIGINT hurries."""
        closing = asyncio.create_task(asyncio.to_thread(self._engine.close, self._grace))
        while not closing.done():
            await asyncio.wait([closing], timeout=0.1)
            if self.force_exit:
                await asyncio.to_thread(self._engine.close, 0.0)
                self.force_exit = False  # all jobs have ended, so what remains is quick
        await super().shutdown(sockets)
