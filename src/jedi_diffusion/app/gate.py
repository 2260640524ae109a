"""Who may come in, and with how much: host, origin, token and size of the body, before anything is read."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jedi_diffusion.app.clients import client_of
from jedi_diffusion.app.failures import code_of, plain
from jedi_diffusion.app.room import Room
from jedi_diffusion.app.uploads import MAX_BODY, MAX_JSON, MAX_TOOLS, NoRoomError

PICTURE = re.compile(r"/v1/jobs/[\w-]+/pictures/\d+\.(png|jpeg|webp)")
OPEN = ("/healthz", "/readyz")
"""Paths that need no token."""
TOOLS = "/mcp"
"""Path of the tools for assistants."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # For all but the page and its files, which have policies of their own: see `page_gate`.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "form-action 'none'; base-uri 'none'",
}

CHALLENGES = ('Basic realm="jedi", charset="UTF-8"', 'Bearer realm="jedi"')
"""Each in a header of its own: Chromium takes two in one for no challenge that it knows."""


class Gate:
    """ASGI middleware around the whole application.

    tokens: none for an open server. hosts: the names by which the server may be addressed, None for any; a
    server on loopback names them, so that no web site can reach it through a name of its own. origins: web
    sites whose pages may use the server, beside its own. on_refusal is told the code of each refusal. room:
    for bodies that are on their way.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: Sequence[str] = (),
        hosts: Iterable[str] | None = None,
        origins: Sequence[str] = (),
        on_refusal: Callable[[str], None] = lambda code: None,
        room: Room | None = None,
    ) -> None:
        self.app = app
        self._on_refusal = on_refusal
        self._room = room or Room()
        self._tokens = [_digest(token) for token in tokens]
        self._hosts = None if hosts is None else frozenset(hosts)
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # the server speaks no websockets
        headers = Headers(scope=scope)
        limit = MAX_JSON if "json" in headers.get("content-type", "").lower() else MAX_BODY
        limit = MAX_TOOLS if scope["path"] == TOOLS else limit
        refused = self._refuse(scope, headers, limit)
        if refused is not None:
            status, message = refused
            self._on_refusal(code_of(status))
            answer = plain(status, message)
            for challenge in CHALLENGES if status == 401 else ():
                answer.headers.append("WWW-Authenticate", challenge)
            await answer(scope, receive, _with_headers(send))
            return
        body = Body(receive, limit, self._room, scope["state"]["client"])
        scope["state"]["let_go"] = body.let_go
        try:
            await self.app(scope, body.receive, _with_headers(send))
        finally:
            body.let_go()

    def _refuse(self, scope: Scope, headers: Headers, limit: int) -> tuple[int, str] | None:
        """Return status and reason, or None for a request that may pass. Notes whose request it is."""
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return 403, "This server does not answer to that host name."
        origin = headers.get("origin")
        if origin and origin not in self._origins and urlsplit(origin).netloc != host:
            return 403, "Pages of other web sites may not use this server."
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > limit:
            return 413, f"The body has {length[:20]} bytes; at most {limit} are accepted."
        token = _token(headers.get("authorization", ""))
        peer = scope.get("client") or ("", 0)
        client = _digest(token).hex() if self._tokens else client_of(str(peer[0]))
        scope.setdefault("state", {})["client"] = client
        path = scope["path"]
        is_open = path in OPEN or (scope["method"] == "GET" and is_keyed(path, scope["query_string"]))
        if self._tokens and not is_open and not self._knows(token):
            return 401, "A token is needed: Authorization: Bearer TOKEN (or as the password of basic auth)."
        return None

    def _knows(self, token: str) -> bool:
        """In constant time: every token is compared in full, whichever fits."""
        given = _digest(token)
        return sum(hmac.compare_digest(given, each) for each in self._tokens) > 0


def is_keyed(path: str, query: bytes) -> bool:
    """Return whether a request is for a finished picture and gives a key, which the picture's route
    checks.
    """
    return query.startswith(b"key=") and PICTURE.fullmatch(path) is not None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server bound to this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _token(authorization: str) -> str:
    """Return the token of a Bearer header, or the password of a Basic one, which is what browsers ask for."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode("utf-8", "replace").partition(":")[2]
        except binascii.Error:
            return ""
    return ""


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    return host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0].lower()


class Body:
    """The body of one request, counted as it comes: one need not say its length."""

    def __init__(self, receive: Receive, limit: int, room: Room, client: str) -> None:
        self._receive, self._limit, self._room, self._client = receive, limit, room, client
        self._total = 0

    async def receive(self) -> Message:
        """Return the next part. Raises HTTPException for too many bytes, NoRoomError."""
        message = await self._receive()
        size = len(message.get("body", b""))
        if self._total + size > self._limit:
            raise HTTPException(413, f"The body has more than the {self._limit} bytes that are accepted.")
        if size and not self._room.take(self._client, size):
            raise NoRoomError("So many uploads are on their way that there is no room now; try again soon.")
        self._total += size
        return message

    def let_go(self) -> None:
        """Note that the body has been read, and that what it held is no longer kept."""
        self._room.give_back(self._client, self._total)
        self._total = 0


def _with_headers(send: Send) -> Send:
    async def adding(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in present)]
        await send(message)

    return adding
