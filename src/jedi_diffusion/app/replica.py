"""Both ends of a call that runs in another process: a replica with the model, and the engine's runner of it.

A replica answers with a stream of events: one a step, and one at the end. Pictures are functions of the call
alone, so a call whose replica is lost is repeated on another one.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from jedi_diffusion.app.engine import PREVIEW_STEPS
from jedi_diffusion.app.jobs import FaultError, Preview, Runner, StoppedError
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.calls import Call
from jedi_diffusion.errors import JeDiError, ModelError

logger = logging.getLogger(__name__)

ATTEMPTS = 4
"""Replicas that may be lost under one call, before the call is taken for what kills them."""
POLL = 0.25
"""Seconds between two looks at whether anybody still waits for a call."""
PAUSE = 0.5
"""Seconds before a call is repeated, doubled each time: the lost replica must be noticed by others first."""

Load = Callable[[], tuple[Runner, ModelCard]]


@dataclass(frozen=True)
class StepDone:
    """Step `number` (from 0) is done, -1 before the first; with rough pictures where somebody looks."""

    number: int
    shown: tuple[Image.Image, ...] = ()

    def look(self) -> tuple[Image.Image, ...]:
        return self.shown


@dataclass(frozen=True)
class CallDone:
    """The end of a call: a picture for each prompt, or why there is none."""

    pictures: tuple[Image.Image, ...] = ()
    error: JeDiError | None = None


Event = StepDone | CallDone


class Replica:
    """Holds a model in a process of its own, and runs one call at a time."""

    def __init__(self, load: Load) -> None:
        self.runner, self.card = load()
        self._alone = threading.Lock()  # Ray may send the next call while a cancelled one is at its last step

    async def describe(self) -> ModelCard:
        return self.card

    async def run(self, call: Call, fingerprint: str) -> AsyncIterator[Event]:
        """Yield the events of a call, if this replica has the weights that are meant ("" for any). Whoever
        closes the stream early ends the call at its next step; the replica is free once it has ended."""
        if fingerprint not in ("", self.card.fingerprint):
            yield CallDone(error=ModelError("The machines of the cluster hold different weights."))
            return
        loop, stop = asyncio.get_running_loop(), threading.Event()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        working = loop.run_in_executor(
            None, self._work, call, stop, lambda event: loop.call_soon_threadsafe(events.put_nowait, event)
        )
        try:
            while (event := await events.get()) is not None:
                yield event
            await working  # raises what was no JeDiError
        finally:
            stop.set()
            await asyncio.wait([working])

    def _work(self, call: Call, stop: threading.Event, tell: Callable[[Event | None], object]) -> None:
        told: int | None = None

        def after_step(step: int, preview: Preview) -> None:
            nonlocal told
            if stop.is_set():
                raise StoppedError
            if step == told:
                return
            told = step
            is_shown = call.previews and step % PREVIEW_STEPS == 1
            tell(StepDone(step, tuple(preview()) if is_shown else ()))

        try:
            with self._alone:
                tell(CallDone(tuple(self.runner.run(call, after_step))))
        except StoppedError:
            pass  # nobody listens any more
        except JeDiError as error:
            tell(CallDone(error=error))
        finally:
            tell(None)


class Response(Protocol):
    """The events of a call, as they come; what it raises says what became of the replica."""

    def __iter__(self) -> Iterator[Event]: ...

    def cancel(self) -> None: ...


class ReplicaRunner:
    """Runs each call on a replica that is free.

    start(call): sends it, and returns before a replica is found. is_lost(error): whether an error says that
    the replica is gone. on_repeat is called before each repetition.
    """

    def __init__(
        self,
        start: Callable[[Call], Response],
        is_lost: Callable[[BaseException], bool],
        on_repeat: Callable[[], None] = lambda: None,
        pause: float = PAUSE,
    ) -> None:
        self.start, self.is_lost, self.on_repeat, self.pause = start, is_lost, on_repeat, pause

    def run(self, call: Call, after_step: Callable[[int, Preview], None]) -> list[Image.Image]:
        """See `Runner`. Raises JeDiError; FaultError where ATTEMPTS replicas were lost."""
        for attempt in range(ATTEMPTS):
            if attempt > 0:
                self.on_repeat()
                _pause(self.pause * 2 ** (attempt - 1), after_step)
            end = _follow(self.start(call), after_step)
            if isinstance(end, CallDone):
                if end.error is not None:
                    raise end.error
                return list(end.pictures)
            if not self.is_lost(end):
                raise end
            logger.error("A replica was lost under a call (%s).", type(end).__name__)
        raise FaultError(f"{ATTEMPTS} replicas were lost, one after another, while they made the picture.")


def _follow(response: Response, after_step: Callable[[int, Preview], None]) -> CallDone | BaseException:
    """Return the end of a call. Says again what is known while nothing comes, so that the call can be
    ended also while it waits for a replica."""
    arrived: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
    threading.Thread(target=_pass_on, args=(response, arrived), daemon=True).start()
    last = StepDone(-1)
    while True:
        try:
            after_step(last.number, last.look)
        except BaseException:
            response.cancel()
            raise
        with suppress(queue.Empty):
            event = arrived.get(timeout=POLL)
            if not isinstance(event, StepDone):
                return event
            last = event


def _pass_on(response: Response, arrived: queue.SimpleQueue[Event | BaseException]) -> None:
    try:
        for event in response:
            arrived.put(event)
        arrived.put(EOFError("The events of a call ended before the call."))
    except BaseException as error:
        arrived.put(error)


def _pause(seconds: float, after_step: Callable[[int, Preview], None]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        after_step(-1, lambda: ())
        time.sleep(min(POLL, left))
