"""The application: routes, errors, the gate in front of them, and the API's description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from jedi_diffusion import __version__
from jedi_diffusion.app import failures
from jedi_diffusion.app.answers import secured
from jedi_diffusion.app.api_page import api_page
from jedi_diffusion.app.gate import OPEN, Gate
from jedi_diffusion.app.routes import router, unknown
from jedi_diffusion.app.service import Service


@dataclass(frozen=True)
class Access:
    """Who may use the server, see `Gate`, and under which path a proxy shows it ("/jedi"; none: "")."""

    tokens: Sequence[str] = ()
    hosts: Sequence[str] | None = None
    origins: Sequence[str] = ()
    root_path: str = ""


def make_application(
    service: Service,
    access: Access | None = None,
    page: Callable[[FastAPI], None] | None = None,
    tools: Callable[[FastAPI], None] | None = None,
) -> FastAPI:
    """Return the application over one service; `page` mounts a page at /, `tools` tools for assistants at
    /mcp. Nothing is listening yet."""
    access = access or Access()
    app = FastAPI(
        title="jedi-diffusion",
        version=__version__,
        description=f"New pictures of a subject from reference photos, with the model {service.card.name}.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.root_path = access.root_path
    describe = app.openapi
    app.openapi = lambda: secured(describe(), bool(access.tokens), OPEN)  # type: ignore[method-assign]
    app.state.service = service
    failures.install(app, service.metrics)
    app.include_router(router)
    app.include_router(unknown)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(api_page(request.app.openapi()))

    if tools is not None:
        tools(app)
    if page is not None:
        page(app)
    else:
        app.add_api_route("/", lambda: RedirectResponse("docs"), include_in_schema=False)
    app.add_middleware(failures.Faults, metrics=service.metrics)
    app.add_middleware(
        Gate,
        tokens=access.tokens,
        hosts=access.hosts,
        origins=access.origins,
        on_refusal=service.metrics.note_refusal,
        room=service.room,
    )
    if access.origins:  # outermost: browsers show a page no answer without its headers, refusals included
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After"],
        )
    if access.root_path:
        app.add_middleware(Prefix, path=access.root_path)
    return app


class Prefix:
    """ASGI middleware that knows under which path a proxy shows the application, whether it takes that off
    or passes it on. FastAPI's own setting is about to go, and the server's knows the former only."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self.app, self.path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            shorter = path.removeprefix(self.path) if path.startswith(f"{self.path}/") else path
            scope = {**scope, "root_path": self.path, "path": shorter}
        await self.app(scope, receive, send)
