"""The application: routes, errors, the gate in front of them, and the API's description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from jedi_diffusion import __version__
from jedi_diffusion.app import failures
from jedi_diffusion.app.api_page import api_page
from jedi_diffusion.app.gate import Gate
from jedi_diffusion.app.routes import router
from jedi_diffusion.app.service import Service


@dataclass(frozen=True)
class Access:
    """Who may use the server; see `Gate`."""

    tokens: Sequence[str] = ()
    hosts: Sequence[str] | None = None
    origins: Sequence[str] = ()


def make_application(
    service: Service, access: Access | None = None, page: Callable[[FastAPI], None] | None = None
) -> FastAPI:
    """The application over one service; `page` mounts a page at /. Nothing is listening yet."""
    access = access or Access()
    app = FastAPI(
        title="jedi-diffusion",
        version=__version__,
        description=f"New pictures of a subject from reference photos, with the model {service.card.name}.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    failures.install(app, service.metrics)
    app.include_router(router)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(api_page(request.app.openapi()))

    if page is not None:
        page(app)
    else:
        app.add_api_route("/", lambda: RedirectResponse("/docs"), include_in_schema=False)
    if access.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(access.origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(Gate, tokens=access.tokens, hosts=access.hosts, origins=access.origins)
    return app
