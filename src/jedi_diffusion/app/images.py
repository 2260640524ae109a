"""The answers of OpenAI's image API: finished pictures at once, or server-sent events while they are made."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from jedi_diffusion.app.engine import PREVIEW_STEPS
from jedi_diffusion.app.failures import describe, refusal
from jedi_diffusion.app.fields import Fields
from jedi_diffusion.app.jobs import Job
from jedi_diffusion.app.results import encoded, file_of, made_with
from jedi_diffusion.app.service import Service, asleep, woken_by
from jedi_diffusion.errors import JeDiError

KEEP_ALIVE = 10.0
"""Seconds after which a stream of events says that it is still there."""
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers with which proxies pass each event on at once."""
Kind = Literal["image_generation", "image_edit"]


async def answered(request: Request, service: Service, job: Job, fields: Fields, kind: Kind) -> Response:
    """Return the pictures of a job in the form that its request asks for."""
    if fields.stream:
        return StreamedPictures(request, service, job, fields, kind)
    return await whole(request, service, job, fields)


async def whole(request: Request, service: Service, job: Job, fields: Fields) -> Response:
    """Return all pictures, with seeds and warnings beside OpenAI's own fields.

    Where the job has failed, the error says also where those of its pictures are that were finished.
    """
    await service.wait(request, job)
    if job.error is not None:
        done = [
            {"url": address_of(request, job, number), "seed": job.ask.seeds[number]} for number in job.done
        ]
        return refusal(job.error, service.metrics, **({"job": job.id, "done": done} if done else {}))
    data: list[dict[str, Any]] = []
    for number, seed in enumerate(job.ask.seeds):
        if fields.response_format == "url":
            data.append({"url": address_of(request, job, number), "seed": seed})
        else:
            file = await run_in_threadpool(file_of, job, number, service.card, service.seal)
            data.append({"b64_json": base64.b64encode(file).decode(), "seed": seed})
    warnings = await run_in_threadpool(service.warnings, job)
    used = await run_in_threadpool(service.usage, job, len(job.pictures))
    details = {"image_tokens": used["output_tokens"], "text_tokens": 0}
    return JSONResponse(
        {
            "created": job.created,
            "data": data,
            **description(job, fields),
            "usage": used | {"output_tokens_details": details},
            "warnings": warnings,
            "model": service.card.name,
            "made_with": made_with(service.card),
        }
    )


def address_of(request: Request, job: Job, number: int) -> str:
    """Return where picture `number` (from 0) of a job is, with the key that opens it."""
    url = request.url_for("picture", identifier=job.id, number=str(number), ending=job.ask.output.format)
    return str(url.include_query_params(key=job.key))


def description(job: Job, fields: Fields) -> dict[str, str]:
    """Return what OpenAI's answers say of pictures beside themselves."""
    return {
        "background": "opaque",
        "output_format": job.ask.output.format,
        "quality": fields.quality_level,
        "size": f"{job.ask.sampling.width}x{job.ask.sampling.height}",
    }


class StreamedPictures(StreamingResponse):
    """Events `KIND.partial_image` and `KIND.completed`, of the pictures in the order in which they come, each
    with its seed; `error` at the end where the job fails. A client that hangs up cancels the job."""

    def __init__(self, request: Request, service: Service, job: Job, fields: Fields, kind: Kind) -> None:
        super().__init__(self._events(), media_type="text/event-stream", headers=UNBUFFERED)
        self._service, self._job, self._fields, self._kind = service, job, fields, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._service.engine.cancel(self._job)  # does nothing to a job that is over

    async def _events(self) -> AsyncIterator[str]:
        job, service = self._job, self._service
        pictures = [
            StreamedPicture(job, number, self._fields.partial_images) for number in range(len(job.pictures))
        ]
        error = None
        try:
            with woken_by(job) as changed:
                is_over = False
                while not is_over:
                    is_over = job.is_over  # read first: what is finished by then is looked at once more
                    for picture in pictures:
                        if (event := await run_in_threadpool(self._news_of, picture)) is not None:
                            yield event
                    while not is_over and not await asleep(changed, KEEP_ALIVE):
                        yield ": still here\n\n"
                        service.engine.end_what_is_late()
            error = job.error
        except JeDiError as fault:  # such as a picture that cannot be signed
            error = fault
        if error is not None:
            _, body = describe(error)
            service.metrics.note_refusal(str(body["code"]))
            yield f"event: error\ndata: {json.dumps({'error': body})}\n\n"

    def _news_of(self, picture: StreamedPicture) -> str | None:
        """Return the next event of a picture, None where there is nothing new.

        Raises what the seal raises.
        """
        job, number, service = self._job, picture.number, self._service
        if picture.is_finished():
            file = file_of(job, number, service.card, service.seal)
            return self._event("completed", number, file, usage=service.usage(job, 1))
        if (rough := picture.next_rough()) is None:
            return None
        file = encoded(rough, job, number, service.card, service.seal)
        return self._event("partial_image", number, file, partial_image_index=picture.shown - 1)

    def _event(self, name: str, number: int, file: bytes, **more: Any) -> str:
        kind = f"{self._kind}.{name}"
        data = {
            "type": kind,
            "b64_json": base64.b64encode(file).decode(),
            "created_at": int(time.time()),
            "seed": self._job.ask.seeds[number],
            **description(self._job, self._fields),
            **more,
        }
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


class StreamedPicture:
    """What a stream has shown of picture `number` (from 0) of a job; `most`: of rough ones, evenly spread."""

    def __init__(self, job: Job, number: int, most: int) -> None:
        self.number, self.shown = number, 0
        self._job, self._was_finished = job, False
        self._latest: Image.Image | None = None
        self._due = due_steps(job.ask.sampling.steps, most)

    def is_finished(self) -> bool:
        """Return whether it is finished, which is said once."""
        is_new = self._job.pictures[self.number] is not None and not self._was_finished
        self._was_finished = self._was_finished or is_new
        return is_new

    def next_rough(self) -> Image.Image | None:
        """Return the rough picture that is due, if it is there."""
        preview = self._job.previews[self.number]
        if self._was_finished or preview is None or preview is self._latest or self.shown == len(self._due):
            return None
        if self._job.steps[self.number] < self._due[self.shown]:
            return None
        self._latest, self.shown = preview, self.shown + 1
        return preview


def due_steps(steps: int, most: int) -> list[int]:
    """After how many steps rough pictures are shown: up to `most` of those that the engine decodes."""
    decoded = [step + 1 for step in range(steps - 1) if step % PREVIEW_STEPS == 1]
    if len(decoded) <= most:
        return decoded
    return [decoded[len(decoded) * (2 * place + 1) // (2 * most)] for place in range(most)]
