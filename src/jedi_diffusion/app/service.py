"""What the routes and the page share: from a request to a job, and waiting for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request

from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.fields import Fields, check_fields, check_model, to_ask
from jedi_diffusion.app.jobs import Job
from jedi_diffusion.app.metrics import Metrics, Replicas
from jedi_diffusion.app.room import Room
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.app.uploads import PhotoReader
from jedi_diffusion.credentials import Seal, unsigned

POLL = 0.1
"""Seconds between two looks at whether a client is still there."""


@dataclass
class Service:
    """One model behind one engine. unknown_words(prompts): the words that the model leaves out;
    cut_off(prompts): a sentence for each that is too long, which quotes what is dropped. seal: what
    signs finished pictures. room: for uploads that are on their way or wait on disk. replicas: the processes
    that hold the model, None where it is this one."""

    engine: Engine
    card: ModelCard
    unknown_words: Callable[[Sequence[str]], list[str]] = lambda prompts: []
    cut_off: Callable[[Sequence[str]], list[str]] = lambda prompts: []
    seal: Seal = unsigned
    photos: PhotoReader = field(default_factory=PhotoReader)
    room: Room = field(default_factory=Room)
    replicas: Replicas | None = None
    metrics: Metrics = field(default_factory=Metrics)
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.engine.on_end = self.metrics.note
        self.metrics.watch(lambda: self.engine.waiting, lambda: self.engine.unfinished)
        if self.replicas is not None:
            self.metrics.watch_replicas(self.replicas)

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken, and somebody is there to do them."""
        there = self.replicas is None or self.replicas.live > 0
        return there and self.engine.is_alive and self.engine.is_accepting

    def check_model(self, name: str | None) -> None:
        """Raise UnknownModelError unless the name is this model's, or none."""
        check_model(name, self.card)

    async def submit(
        self,
        request: Request,
        fields: Fields,
        photos: list[UploadFile | str],
        masks: list[UploadFile] | None = None,
    ) -> Job:
        """Return the job of a request. Raises JeDiError."""
        width, height = check_fields(fields, len(photos), self.card, len(masks or ()))
        sampling = fields.over(self.card.own).at(height, width)
        self.engine.budget.check(sampling, fields.n, len(photos))
        self.engine.check_room()
        references = await self.photos.read(photos, width, height, masks, self.card.own_shape)
        ask = to_ask(fields, references, sampling)
        is_watched = fields.stream and fields.partial_images > 0
        return self.engine.submit(ask, request.state.client, fields.deadline, previews=is_watched)

    def usage(self, job: Job, pictures: int) -> dict[str, Any]:
        """Return what so many pictures of a job took, as OpenAI's API counts it (see `ModelCard`)."""
        ask, card = job.ask, self.card
        a_picture = card.image_tokens(ask.sampling.width, ask.sampling.height)
        texts, images = card.text_tokens([ask.prompts[0], *ask.captions]), a_picture * len(ask.digests)
        made = a_picture * pictures
        return {
            "input_tokens": texts + images,
            "input_tokens_details": {"image_tokens": images, "text_tokens": texts},
            "output_tokens": made,
            "total_tokens": texts + images + made,
        }

    def warnings(self, job: Job) -> list[str]:
        """Return what its client should know about a job."""
        prompts = [*dict.fromkeys(job.ask.prompts), *job.ask.captions]
        words = self.unknown_words(prompts)
        left_out = f"The model does not know these words and leaves them out: {', '.join(words)}."
        return [*([left_out] if words else []), *self.cut_off(prompts)]

    async def wait(self, request: Request, job: Job) -> None:
        """Until a job is over; it is cancelled when its client hangs up."""
        try:
            with woken_by(job) as changed:
                while not job.is_over:
                    await asleep(changed, POLL)
                    self.engine.end_what_is_late()
                    if await request.is_disconnected():
                        return
        finally:
            self.engine.cancel(job)  # does nothing to a job that is over


@contextmanager
def woken_by(job: Job) -> Iterator[asyncio.Event]:
    """Yield an event that is set, in the loop that runs here, at each change of a job."""
    changed, loop = asyncio.Event(), asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has been closed meanwhile: nobody is waiting
            loop.call_soon_threadsafe(changed.set)

    job.listeners.append(wake)
    try:
        yield changed
    finally:
        job.listeners.remove(wake)


async def asleep(changed: asyncio.Event, seconds: float) -> bool:
    """Until the event is set, at most so long; clears it, and says whether it was."""
    with suppress(TimeoutError):
        await asyncio.wait_for(changed.wait(), seconds)
    was_set = changed.is_set()
    changed.clear()
    return was_set
