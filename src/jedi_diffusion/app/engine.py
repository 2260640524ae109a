"""Jobs and the workers that do them: a bounded queue, fair between clients, with deadlines and cancelling.

A turn is one call of a pipeline. Clients take turns; a job with many pictures needs several, so that another
client waits for one call at most. Pictures that share all but prompt and seed may be computed in one call.
"""

from __future__ import annotations

import hmac
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from jedi_diffusion.app.budget import Budget
from jedi_diffusion.app.jobs import (
    Ask,
    CancelledJobError,
    ClosedError,
    DeadlineError,
    FaultError,
    Job,
    Preview,
    QueueFullError,
    RefusedError,
    Runner,
    State,
    StoppedError,
)
from jedi_diffusion.app.kept import Kept, Shelf
from jedi_diffusion.calls import Call
from jedi_diffusion.errors import JeDiError, UsageError
from jedi_diffusion.references import Reference
from jedi_diffusion.watermark import marked

if TYPE_CHECKING:
    from jedi_diffusion.app.safety import SafetyFilter

logger = logging.getLogger(__name__)

MOST_FINISHED = 4096
"""Finished jobs that can still be asked for, with or without pictures."""
HELD_BACK = "A picture is held back: a filter takes it for sexual content. Another seed may give another one."
PREVIEW_STEPS = 3
"""Steps between two previews of a picture, for those who watch."""


class Place(NamedTuple):
    """Picture `number` (from 0) of a job."""

    job: Job
    number: int


class Engine:
    """Makes pictures for many clients on one or more devices, and marks each with the watermark.

    runners: one a device, each with a thread of its own. capacity: pictures that may wait. max_bytes: memory
    that the references of unfinished jobs may hold. batch: pictures in one call at most. deadline: seconds
    that a job may take from its submission. keep_seconds: how long a finished job can still be asked for, and
    keep_bytes: on disk, of the pictures of all of them. budget: what one job may cost. safety: holds back
    references and pictures, None for nothing. on_end is called with each job that ends.
    """

    def __init__(
        self,
        runners: Sequence[Runner],
        *,
        capacity: int = 64,
        max_bytes: int = 2**30,
        batch: int = 1,
        deadline: float = 600.0,
        keep_bytes: int = 2**30,
        keep_seconds: float = 600.0,
        budget: Budget | None = None,
        safety: SafetyFilter | None = None,
        on_end: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.capacity, self.max_bytes, self.batch = capacity, max_bytes, batch
        self.deadline, self.keep_bytes, self.keep_seconds = deadline, keep_bytes, keep_seconds
        self._shelf = Shelf()
        self.on_end = on_end
        self.budget, self.safety = budget or Budget(), safety
        self._changed = threading.Condition(threading.RLock())
        self._turns: OrderedDict[str, deque[Job]] = OrderedDict()
        self._unfinished: dict[str, Job] = {}
        self._finished: OrderedDict[str, Job] = OrderedDict()
        self._is_closing = self._is_stopped = False
        self._threads = [
            threading.Thread(target=self._work, args=(runner,), name=f"jedi-worker-{number}", daemon=True)
            for number, runner in enumerate(runners)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Pictures that no worker has begun."""
        with self._changed:
            return sum(len(job.ask.prompts) - job.taken for jobs in self._turns.values() for job in jobs)

    @property
    def unfinished(self) -> int:
        """Jobs that are waiting or under way."""
        return len(self._unfinished)

    @property
    def is_accepting(self) -> bool:
        return not self._is_closing

    @property
    def is_alive(self) -> bool:
        """False once a worker has died, which only a fault of this file could cause."""
        return all(thread.is_alive() for thread in self._threads)

    def submit(self, ask: Ask, client: str = "", seconds: float | None = None, previews: bool = False) -> Job:
        """Put an ask into the queue, with a deadline of `seconds` from now (at most and by default the
        engine's). previews: rough pictures are wanted meanwhile.
        Raises QueueFullError, ClosedError, UsageError for an ask that no queue could hold, TooMuchError."""
        self.budget.check(ask.sampling, len(ask.prompts), len(ask.digests))
        if len(ask.prompts) > self.capacity or ask.bytes > self.max_bytes:
            raise UsageError(
                f"{len(ask.prompts)} pictures with {ask.bytes / 2**20:.0f} MB of references are more than "
                f"this server takes at once ({self.capacity} pictures, {self.max_bytes / 2**20:.0f} MB)."
            )
        with self._changed:
            self.check_open()
            self.end_what_is_late()
            held = sum(job.ask.bytes for job in self._unfinished.values())
            if self.waiting + len(ask.prompts) > self.capacity or held + ask.bytes > self.max_bytes:
                raise QueueFullError(self._seconds_until_free())
            now = time.monotonic()
            job = Job(ask, client, now + min(seconds or math.inf, self.deadline), now)
            job.wants_previews = previews
            self._unfinished[job.id] = job
            self._turns.setdefault(client, deque()).append(job)
            self._changed.notify_all()
            return job

    def check_room(self) -> None:
        """Raise QueueFullError or ClosedError when no ask would be taken, before it is decoded."""
        with self._changed:
            self.check_open()
            if self.waiting >= self.capacity:
                raise QueueFullError(self._seconds_until_free())

    def check_open(self) -> None:
        if self._is_closing:
            raise ClosedError("The server is shutting down.")

    def find(self, identifier: str, client: str, key: str = "") -> Job | None:
        """Return the job of this id, if it is still there, and is the client's or the key is its own."""
        with self._changed:
            self._forget()
            job = self._unfinished.get(identifier) or self._finished.get(identifier)
            if job is not None and not job.is_over:
                self.end_what_is_late()
            is_known = job is not None and (
                job.client == client or hmac.compare_digest(job.key.encode(), key.encode())
            )
            return job if is_known else None

    def cancel(self, job: Job) -> None:
        """End a job, also one under way: its call stops at the next step. A job that is over stays so."""
        with self._changed:
            self._end(job, "cancelled", CancelledJobError("The job was cancelled."))

    def end_what_is_late(self) -> None:
        """Fail the jobs whose deadline has passed; done at every step and by whoever asks for a job."""
        now = time.monotonic()
        with self._changed:
            for job in [each for each in self._unfinished.values() if each.deadline <= now]:
                allowed = job.deadline - job.submitted
                self._end(job, "failed", DeadlineError(f"The job was not done within {allowed:g} s."))

    def seconds_left(self, job: Job) -> float | None:
        """About how long until the job is done; None until a call has shown how fast this machine is."""
        with self._changed:
            if not self.budget.is_known:
                return None
            own, earlier = self._work_left(job), 0.0
            others: dict[str, float] = {}
            for each in self._unfinished.values():
                if each.client != job.client:
                    others[each.client] = others.get(each.client, 0) + self._work_left(each)
                elif each.submitted < job.submitted:
                    earlier += self._work_left(each)
            ahead = sum(min(seconds, own + earlier) for seconds in others.values())
            return (own + earlier + ahead) / len(self._threads)

    def close(self, grace: float = 30.0) -> None:
        """Take no more, finish what there is within `grace` seconds, return the rest as ClosedError."""
        end = time.monotonic() + grace
        with self._changed:
            self._is_closing = True
            self._changed.wait_for(lambda: not self._unfinished, timeout=grace)
            for job in list(self._unfinished.values()):
                self._end(job, "failed", ClosedError("The server shut down before the job was done."))
            self._is_stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(5.0, end - time.monotonic()))

    # What follows runs with the lock held, except _work and _run.

    def _work(self, runner: Runner) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._turns or self._is_stopped)
                if self._is_stopped:
                    return
                places = self._take()
            if places:
                self._run(runner, places)

    def _take(self) -> list[Place]:
        """Return the pictures of the next call: of the client whose turn it is, and what fits beside them."""
        self.end_what_is_late()
        if not self._turns:
            return []
        client = next(iter(self._turns))
        first = self._turns[client][0]
        places: list[Place] = []
        most = self.budget.at_once(first.ask.sampling, len(first.ask.digests), self.batch)
        jobs = [job for queue in self._turns.values() for job in queue if job.ask.key == first.ask.key]
        for job in jobs if most > 1 else [first]:
            while len(places) < most and job.taken < len(job.ask.prompts):
                places.append(Place(job, job.taken))
                job.taken += 1
        if client in self._turns:
            self._turns.move_to_end(client)
        for job in {place.job.id: place.job for place in places}.values():
            if job.state == "queued":
                job.state, job.started = "running", time.monotonic()
            if job.taken == len(job.ask.prompts):
                self._leave_queue(job)
        return places

    def _run(self, runner: Runner, places: list[Place]) -> None:
        ask, clients = places[0].job.ask, {job.client for job, _ in places}
        call = Call(
            prompts=[job.ask.prompts[number] for job, number in places],
            seeds=[job.ask.seeds[number] for job, number in places],
            references=ask.references,
            captions=ask.captions,
            sampling=ask.sampling,
            previews=any(job.wants_previews for job, _ in places),
            owner=next(iter(clients)) if len(clients) == 1 else None,
        )
        start = time.monotonic()
        try:
            self._check(ask.references)
            pictures = runner.run(call, lambda step, preview: self._after_step(places, step, preview))
            may_go = [not self._is_held_back(picture) for picture in pictures]
            kept = [self._shelf.add(marked(each)) for each, may in zip(pictures, may_go, strict=True) if may]
        except StoppedError:
            return
        except JeDiError as error:
            self._fail(places, error)
        except Exception:  # whatever it was, it ends this call alone; the worker lives on
            logger.exception("A call of the pipeline failed.")
            self._fail(places, FaultError("The server failed to make the picture; its log says why."))
        else:
            good = [place for place, may in zip(places, may_go, strict=True) if may]
            if good:
                self._store(good, kept, time.monotonic() - start)
            if len(good) < len(places):
                self._fail([place for place in places if place not in good], RefusedError(HELD_BACK))

    def _check(self, references: Sequence[Image.Image | Reference]) -> None:
        """Raise RefusedError for a reference that the filter does not let in."""
        number = None if self.safety is None else self.safety.refused(references)
        if number is not None:
            raise RefusedError(f"Reference {number} is refused: a filter takes it for sexual content.")

    def _is_held_back(self, picture: Image.Image) -> bool:
        return self.safety is not None and self.safety.refuses(picture)

    def _after_step(self, places: list[Place], step: int, preview: Preview) -> None:
        """Note progress; raises StoppedError when nobody waits for any of the pictures. Runners call it
        inside a step too, with the step before."""
        with self._changed:
            self.end_what_is_late()
            live = [place for place in places if not place.job.is_over]
            if not live:
                raise StoppedError
            if all(job.steps[number] == step + 1 for job, number in live):
                return
            for job, number in live:
                job.steps[number] = step + 1
            is_watched = step % PREVIEW_STEPS == 1 and any(job.wants_previews for job, _ in live)
        shown = [self._rough(picture) for picture in preview()] if is_watched else ()
        with self._changed:
            for place, picture in zip(places, shown, strict=False):
                place.job.previews[place.number] = picture
            for job in {place.job.id: place.job for place in live}.values():
                job.tell()

    def _rough(self, picture: Image.Image) -> Image.Image:
        """Return a rough picture as it may be shown."""
        return Image.new("RGB", picture.size, "gray") if self._is_held_back(picture) else marked(picture)

    def _store(self, places: list[Place], pictures: Sequence[Kept], seconds: float) -> None:
        with self._changed:
            ask = places[0].job.ask
            steps = len(places) * ask.sampling.steps
            self.budget.note(ask.sampling, len(ask.digests), steps, seconds)
            for (job, number), picture in zip(places, pictures, strict=True):
                job.pictures[number] = picture
                if job.is_over:  # it ended during the last step; what is made is kept all the same
                    if job.id not in self._finished:
                        picture.delete()
                    continue
                job.steps[number] = job.ask.sampling.steps
                if all(each is not None for each in job.pictures):
                    self._end(job, "done")
                else:
                    job.tell()

    def _fail(self, places: list[Place], error: JeDiError) -> None:
        with self._changed:
            for job, _ in places:
                self._end(job, "failed", error)

    def _end(self, job: Job, state: State, error: JeDiError | None = None) -> None:
        if job.is_over:
            return
        job.state, job.error, job.ended = state, error, time.monotonic()
        job.let_go()
        self._leave_queue(job)
        del self._unfinished[job.id]
        self._finished[job.id] = job
        self._forget()
        self.on_end(job)
        job.tell()
        self._changed.notify_all()

    def _leave_queue(self, job: Job) -> None:
        queue = self._turns.get(job.client)
        if queue is not None and job in queue:
            queue.remove(job)
            if not queue:
                del self._turns[job.client]

    def _forget(self) -> None:
        """Drop finished jobs that are too many, or whose pictures are too large together or too old."""
        oldest = time.monotonic() - self.keep_seconds
        held = sum(job.kept_bytes for job in self._finished.values())
        while self._finished:
            first = next(iter(self._finished.values()))
            fits = len(self._finished) <= MOST_FINISHED and held <= self.keep_bytes
            if fits and (first.ended or 0) >= oldest:
                break
            held -= first.kept_bytes
            del self._finished[first.id]
            first.delete()

    def _seconds_until_free(self) -> int:
        """Return an estimate for Retry-After: half of the queue."""
        seconds = sum(map(self._work_left, self._unfinished.values())) / len(self._threads) / 2
        return min(600, max(1, math.ceil(seconds)))

    def _work_left(self, job: Job) -> float:
        """Return seconds that a worker needs for what is left of a job."""
        return self.budget.seconds(job.ask.sampling, len(job.ask.digests), job.steps_left)
