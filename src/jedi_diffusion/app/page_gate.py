"""What of gradio a visitor reaches: the addresses that the page in a browser asks for, and nothing else.

Gradio would also run recordings, list its endpoints, proxy other servers, and fetch `file=http://...` from
the internet for whoever asks.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jedi_diffusion.app.failures import describe, plain
from jedi_diffusion.app.received import Received
from jedi_diffusion.errors import JeDiError

API = "/gradio_api/"
READ = {"/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", "/robots.txt"}
READ |= {f"{API}{name}" for name in ("queue/data", "startup-events")}
SENT = {f"{API}{name}" for name in ("queue/join", "cancel", "reset")}
"""What the page in a browser gets and posts, beside its own scripts, heartbeats, uploads and pictures."""
PICTURES = (".png", ".webp", ".jpg")
MAX_FILES = 32
"""Photos in one upload; the page then says how many it takes."""
SCRIPT = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
POLICY = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; manifest-src 'self'; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
"""Of the page itself. Scripts are its files and those in its HTML that its hashes name. Gradio sets styles in
elements, which cannot be named."""
STORED = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""Policy of files: nothing in them runs, whatever they hold and however they are opened."""


class PageGate:
    """ASGI middleware around gradio's own application.

    received: where uploads go. shown: the folder of the pictures and archives that gradio shows.
    """

    def __init__(self, app: ASGIApp, received: Received, shown: Path) -> None:
        self.app, self.received = app, received
        self._files = re.compile(re.escape(f"{API}file={shown}/") + r"[0-9a-f]{64}/[^/\\]+")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        root = scope.get("root_path", "")
        path = path.removeprefix(root)
        if path == f"{API}upload" and method == "POST":
            await (await self._upload(Request(scope, receive)))(scope, receive, send)
        elif path == f"{API}upload_progress":
            await Response(status_code=204)(scope, receive, send)  # which ends the browser's asking
        elif path == "/" and method in ("GET", "HEAD"):
            await self._page(scope, receive, send)
        elif self._files.fullmatch(path) and path.endswith((*PICTURES, ".zip")) and method in ("GET", "HEAD"):
            await self.app(scope, receive, _as_file(send, is_inline=path.endswith(PICTURES)))
        elif path in SENT if method == "POST" else self._is_read(path) and method in ("GET", "HEAD"):
            await self.app(scope, receive, send)
        else:
            await plain(404, "There is nothing here.")(scope, receive, send)

    def _is_read(self, path: str) -> bool:
        return path in READ or path.startswith(("/assets/", "/static/", f"{API}heartbeat/"))

    async def _upload(self, request: Request) -> Response:
        """In place of gradio's own: stores the files, and answers with their handles."""
        try:
            async with request.form(max_files=MAX_FILES, max_fields=8) as form:
                files = [each for each in form.getlist("files") if isinstance(each, UploadFile)]
                return JSONResponse([await self._store(each, request.state.client) for each in files])
        except JeDiError as error:
            return PlainTextResponse(str(error), describe(error)[0])
        except HTTPException as error:
            return PlainTextResponse(str(error.detail), error.status_code)

    async def _store(self, file: UploadFile, client: str) -> str:
        return await run_in_threadpool(self.received.add, file.file, file.size or 0, file.filename, client)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the page, with a policy that names its own scripts.

        What the address asks for beside it is dropped: gradio would read a file for `deep_link`.
        """
        headers = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        start: Message = {}
        parts: list[bytes] = []

        async def hold(message: MutableMapping[str, Any]) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                body = b"".join(parts)
                MutableHeaders(scope=start)["Content-Security-Policy"] = policy_of(body)
                await send(start)
                await send({"type": "http.response.body", "body": body})

        await self.app({**scope, "headers": headers, "query_string": b""}, receive, hold)


def policy_of(page: bytes) -> str:
    """Return the policy of an HTML page: scripts that stand in it are named by their digests."""
    digests = [hashlib.sha256(script).digest() for script in SCRIPT.findall(page)]
    return POLICY.format(scripts=" ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests))


def _as_file(send: Send, is_inline: bool) -> Send:
    async def adding(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = STORED
            headers["Cache-Control"] = "private, max-age=600"
            if not is_inline:
                name = Headers(raw=message["headers"]).get("content-disposition", "").partition(";")[2]
                headers["Content-Disposition"] = "attachment" + (f";{name}" if name else "")
        await send(message)

    return adding
