"""Which of gradio's own addresses a visitor may use: those of the page, and files in the page's folder."""

from __future__ import annotations

from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from jedi_diffusion.app.failures import plain

PREFIX = "/gradio_api/"
OPEN = ("upload", "upload_progress", "queue/join", "queue/data", "cancel", "reset", "startup-events")
"""What the page in a browser asks for, beside heartbeats and files."""


class PageGate:
    """ASGI middleware. Gradio would also run recordings, proxy other servers, and fetch `file=http://...`
    from the internet for whoever asks."""

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self.app, self._files = app, f"file={folder}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if PREFIX in path and not self._is_open(path.partition(PREFIX)[2]):
            await plain(404, "There is nothing here.")(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_open(self, name: str) -> bool:
        return name in OPEN or name.startswith(("heartbeat/", self._files))
