"""The API: OpenAI's pictures, jobs with progress, health and metrics."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, get_args

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Match

from jedi_diffusion.app.answers import Failure, Health, Images, JobState, Model, Models
from jedi_diffusion.app.failures import describe
from jedi_diffusion.app.fields import FieldError, Fields, read_fields
from jedi_diffusion.app.images import KEEP_ALIVE, UNBUFFERED, address_of, answered
from jedi_diffusion.app.jobs import Job, PictureFormat
from jedi_diffusion.app.results import file_of
from jedi_diffusion.app.service import Service, asleep, woken_by
from jedi_diffusion.app.uploads import read_form, read_json

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
EVENTS = "text/event-stream"
FIELDS = Fields.model_json_schema()
PHOTOS = {"type": "array", "maxItems": 16, "items": {"type": "string", "format": "binary"}}
FORM = FIELDS | {"properties": {"image": PHOTOS, "reference_mask": PHOTOS, **FIELDS["properties"]}}
REASONS = {
    400: "The request is wrong, or would take more than this server gives to one",
    401: "No token, or an unknown one",
    403: "Another host name, or a page of another web site",
    404: "There is no such model, job or picture",
    409: "The job was cancelled",
    413: "Too many bytes",
    415: "Another kind of body is needed",
    429: "The queue is full; Retry-After says when to try again",
    500: "The server failed; its log says why",
    503: "The server is starting or shutting down",
    504: "Not done in time",
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": reason, "model": Failure} for status, reason in REASONS.items()
}
COUNTERS = {
    "description": "Prometheus' text format",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
PICTURE = {
    "description": "The picture",
    "content": {f"image/{kind}": BINARY for kind in get_args(PictureFormat)},
}


def gives(answer: type[BaseModel], status: int = 200, *more: str) -> dict[int | str, dict[str, Any]]:
    """Return the answer of an address where all is well, in JSON and perhaps in other forms."""
    content = {kind: {"schema": {"type": "string"}} for kind in more}
    return {status: {"model": answer, **({"content": content} if more else {})}}


def body(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}


router = APIRouter(responses=ANSWERS)


def service_of(request: Request) -> Service:
    return request.app.state.service


@router.post(
    "/v1/images/edits", responses=gives(Images, 200, EVENTS), openapi_extra=body("multipart/form-data", FORM)
)
async def edit(request: Request) -> Response:
    """Return new pictures of the subject that the uploaded photos show."""
    async with read_form(request) as form:
        if not form.photos:
            raise FieldError("0 references are given; at least 1 is needed in the field image.", "image")
        fields = read_fields(form.values)
        job = await service_of(request).submit(request, fields, form.photos, form.masks)
    return await answered(request, service_of(request), job, fields, "image_edit")


@router.post(
    "/v1/images/generations",
    responses=gives(Images, 200, EVENTS),
    openapi_extra=body("application/json", FIELDS),
)
async def generate(request: Request) -> Response:
    """Return pictures from a prompt alone."""
    fields = read_fields(await read_json(request))
    job = await service_of(request).submit(request, fields, [])
    return await answered(request, service_of(request), job, fields, "image_generation")


@router.get("/v1/models", responses=gives(Models))
async def models(request: Request) -> dict[str, Any]:
    """Return the one model of this server."""
    return {"object": "list", "data": [described(service_of(request))]}


@router.get("/v1/models/{name:path}", responses=gives(Model))
async def model(request: Request, name: str) -> dict[str, Any]:
    """Return the model of this name."""
    service = service_of(request)
    service.check_model(name)
    return described(service)


def described(service: Service) -> dict[str, Any]:
    card = service.card
    model = {"id": card.name, "object": "model", "created": service.started, "owned_by": "jedi-diffusion"}
    return model | {"about": card.about, "size": card.size, "fingerprint": card.fingerprint}


@router.post(
    "/v1/jobs",
    status_code=202,
    responses=gives(JobState, 202),
    openapi_extra=body("multipart/form-data", FORM),
)
async def submit(request: Request) -> Response:
    """Queue pictures, with or without photos, and return at once."""
    async with read_form(request) as form:
        fields = read_fields(form.values)
        if fields.stream:
            raise FieldError(
                "stream is for edits and generations; a job's own address has its events.", "stream"
            )
        job = await service_of(request).submit(request, fields, form.photos, form.masks)
    return JSONResponse(
        state_of(request, job), 202, {"Location": request.url_for("follow", identifier=job.id).path}
    )


@router.get("/v1/jobs/{identifier}", responses=gives(JobState, 200, EVENTS))
async def follow(request: Request, identifier: str) -> Response:
    """Return how far a job is; as a stream of events with `Accept: text/event-stream`."""
    job = find(request, identifier)
    if EVENTS not in request.headers.get("accept", ""):
        return JSONResponse(state_of(request, job))
    return StreamingResponse(events(request, job), media_type=EVENTS, headers=UNBUFFERED)


@router.delete("/v1/jobs/{identifier}", responses=gives(JobState))
async def cancel(request: Request, identifier: str) -> Response:
    """End a job; what is under way stops within one step."""
    job = find(request, identifier)
    service_of(request).engine.cancel(job)
    return JSONResponse(state_of(request, job))


@router.get(
    "/v1/jobs/{identifier}/pictures/{number}.{ending}",
    name="picture",
    responses={200: PICTURE},
    response_class=Response,
)
async def picture(request: Request, identifier: str, number: str, ending: str, key: str = "") -> Response:
    """Return a finished picture, counted from 0, in the job's format; a PNG has its settings in text.
    `key`, as the job's addresses have it, stands in for a token."""
    job = find(request, identifier, key)
    if number not in map(str, range(len(job.pictures))) or ending != job.ask.output.format:
        raise HTTPException(404, "There is no such picture.")
    service = service_of(request)
    file = await run_in_threadpool(file_of, job, int(number), service.card, service.seal)
    return Response(file, media_type=f"image/{ending}", headers={"Cache-Control": "private, max-age=600"})


def find(request: Request, identifier: str, key: str = "") -> Job:
    """Return the job of this id, if it is the client's or the key is its own. Raises HTTPException (404)."""
    job = service_of(request).engine.find(identifier, request.state.client, key)
    if job is None:
        raise HTTPException(404, "There is no such job (any more).")
    return job


def state_of(request: Request, job: Job) -> dict[str, Any]:
    """Return a job as its client sees it."""
    ask = job.ask
    rows = [
        {
            "seed": ask.seeds[number],
            "prompt": ask.prompts[number],
            "step": job.steps[number],
            "url": address_of(request, job, number) if job.pictures[number] else None,
        }
        for number in range(len(ask.prompts))
    ]
    return {
        "id": job.id,
        "object": "job",
        "created": job.created,
        "state": job.state,
        "progress": round(job.progress, 4),
        "steps": ask.sampling.steps,
        "seconds_left": service_of(request).engine.seconds_left(job),
        "pictures": rows,
        "error": describe(job.error)[1] if job.error else None,
    }


async def events(request: Request, job: Job) -> AsyncIterator[str]:
    """Yield server-sent events: `progress` at each change, then one named by how the job ended."""
    with woken_by(job) as changed:
        while not job.is_over:
            yield f"event: progress\ndata: {json.dumps(state_of(request, job))}\n\n"
            while not await asleep(changed, KEEP_ALIVE):
                yield ": still here\n\n"
                service_of(request).engine.end_what_is_late()
    yield f"event: {job.state}\ndata: {json.dumps(state_of(request, job))}\n\n"


@router.get("/healthz", responses=gives(Health))
async def health(request: Request) -> Response:
    """Return whether the process works."""
    good = service_of(request).engine.is_alive
    return JSONResponse({"status": "ok" if good else "a worker died"}, 200 if good else 503)


@router.get("/readyz", responses=gives(Health))
async def ready(request: Request) -> Response:
    """Return whether requests are taken and can be done."""
    service = service_of(request)
    good, replicas = service.is_ready, service.replicas
    counts = {"replicas": {"live": replicas.live, "wanted": replicas.wanted}} if replicas else {}
    return JSONResponse({"status": "ready" if good else "not ready", **counts}, 200 if good else 503)


@router.get("/metrics", responses={200: COUNTERS}, response_class=Response)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    text = service_of(request).metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def nothing(request: Request) -> Response:
    """Other addresses of the API, which the page would answer in a shape of its own."""
    if any(route.matches(request.scope)[0] is Match.PARTIAL for route in router.routes):
        raise HTTPException(405, f"{request.method} is not for this address; /docs says what is.")
    raise HTTPException(404, "There is no such address; /docs lists those that there are.")


unknown = APIRouter()
unknown.add_api_route("/v1/{rest:path}", nothing, methods=list(METHODS), include_in_schema=False)
