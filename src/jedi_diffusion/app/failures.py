"""Errors as answers, in the shape of OpenAI's API: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jedi_diffusion.app.budget import TooMuchError
from jedi_diffusion.app.fields import FieldError, UnknownModelError
from jedi_diffusion.app.jobs import (
    CancelledJobError,
    ClosedError,
    DeadlineError,
    QueueFullError,
    RefusedError,
)
from jedi_diffusion.app.kept import GoneError
from jedi_diffusion.app.metrics import Metrics
from jedi_diffusion.app.uploads import MediaTypeError, NoRoomError, TooLargeError
from jedi_diffusion.errors import JeDiError, PictureError, UsageError

logger = logging.getLogger(__name__)

INVALID, SERVER = "invalid_request_error", "server_error"
KINDS: list[tuple[type[JeDiError], int, str, str]] = [
    (UnknownModelError, 404, INVALID, "model_not_found"),
    (GoneError, 404, INVALID, "not_found"),
    (TooLargeError, 413, INVALID, "too_large"),
    (MediaTypeError, 415, INVALID, "media_type"),
    (PictureError, 400, INVALID, "bad_picture"),
    (RefusedError, 400, INVALID, "moderation_blocked"),
    (TooMuchError, 400, INVALID, "too_much"),
    (UsageError, 400, INVALID, "bad_request"),
    (QueueFullError, 429, "rate_limit_error", "queue_full"),
    (CancelledJobError, 409, INVALID, "cancelled"),
    (NoRoomError, 503, SERVER, "no_room"),
    (ClosedError, 503, SERVER, "shutting_down"),
    (DeadlineError, 504, SERVER, "deadline"),
    (JeDiError, 500, SERVER, "failed"),
]
"""From an exception to status, type and code; the first that fits."""
CODES = {
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}


def code_of(status: int) -> str:
    """Return the code of an HTTP status for what is no exception of ours."""
    return CODES.get(status, "failed" if status >= 500 else "bad_request")


def describe(error: JeDiError) -> tuple[int, dict[str, str | None]]:
    """Return the HTTP status of an error, and the object that tells a client of it."""
    _, status, kind, code = next(row for row in KINDS if isinstance(error, row[0]))
    param = error.param if isinstance(error, FieldError) else None
    return status, {"message": str(error), "type": kind, "param": param, "code": code}


def plain(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer for what is no exception of ours."""
    kind = SERVER if status >= 500 else "authentication_error" if status == 401 else INVALID
    error = {"message": message, "type": kind, "param": None, "code": code_of(status)}
    return JSONResponse({"error": error}, status, headers)


def refusal(error: JeDiError, metrics: Metrics, **more: Any) -> Response:
    """Return the answer to an error, which is counted; `more`: what else a client is told."""
    status, body = describe(error)
    metrics.note_refusal(str(body["code"]))
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, QueueFullError) else None
    return JSONResponse({"error": body | more}, status, headers)


def install(app: FastAPI, metrics: Metrics) -> None:
    """Make all failures of an application answer in this shape, and count them by code."""

    def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, JeDiError)
        return refusal(error, metrics)

    def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        metrics.note_refusal(code_of(error.status_code))
        return plain(error.status_code, str(error.detail), dict(error.headers or {}))

    def unread(_: Request, error: Exception) -> Response:
        metrics.note_refusal(code_of(400))
        return plain(400, f"The request is wrong: {error}.")

    def fault(_: Request, error: Exception) -> Response:
        return answer_to_fault(error, metrics)

    app.add_exception_handler(JeDiError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, unread)
    app.add_exception_handler(ClientDisconnect, lambda *_: plain(400, "The client hung up."))
    app.add_exception_handler(Exception, fault)  # what `Faults` leaves: around it, and amid an answer


class Faults:
    """ASGI middleware that answers faults from inside the others: the handler of an application answers from
    outside of them all, where its answer lacks the headers that they add."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception as error:
            if has_begun or scope["type"] != "http":
                raise  # to the handler of `install`; the server then breaks the connection off
            await answer_to_fault(error, self._metrics)(scope, receive, send)


def answer_to_fault(error: Exception, metrics: Metrics) -> Response:
    """Return the answer to an error that nobody expected, which is logged and counted."""
    logger.error("A request failed.", exc_info=error)
    metrics.note_refusal(code_of(500))
    return plain(500, "The server failed; its log says why.")
