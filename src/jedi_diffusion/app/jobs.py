"""What a client asks for, how far it has come, and how it can end."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from PIL import Image

from jedi_diffusion.app.kept import Kept
from jedi_diffusion.calls import Call
from jedi_diffusion.errors import JeDiError
from jedi_diffusion.options import SizedSampling
from jedi_diffusion.references import Reference

State = Literal["queued", "running", "done", "failed", "cancelled"]
PictureFormat = Literal["png", "jpeg", "webp"]
Preview = Callable[[], Sequence[Image.Image]]


class QueueFullError(JeDiError):
    """The queue holds as much as it may; `retry_after` says in how many seconds to try again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The queue is full; try again in {retry_after} s.")
        self.retry_after = retry_after


class ClosedError(JeDiError):
    """The server is shutting down."""


class CancelledJobError(JeDiError):
    """The job was cancelled, by its client or because the client hung up."""


class DeadlineError(JeDiError):
    """The job was not done in time."""


class FaultError(JeDiError):
    """The server failed at a job for a reason of its own."""


class RefusedError(JeDiError):
    """A filter of contents holds back a reference or a picture."""


class StoppedError(Exception):
    """Thrown through a runner's call when nobody waits for its pictures any more."""


class Runner(Protocol):
    """Makes pictures on one device, one call at a time."""

    def run(self, call: Call, after_step: Callable[[int, Preview], None]) -> list[Image.Image]:
        """Return a picture for each prompt of the call.

        after_step(step from 0, preview) runs after every step, and every now and then inside a long one, or
        while a runner waits, with the latest step again; what it raises ends the call at once. preview()
        decodes what the model takes the pictures to be at that step. Step -1 says that the call is (again) at
        its beginning.
        """


@dataclass(frozen=True)
class Output:
    """The files that pictures are given out as; quality: of JPEG and WebP, 0 to 100."""

    format: PictureFormat = "png"
    quality: int = 100


@dataclass(frozen=True)
class Ask:
    """One prompt and one seed a picture; references, upright RGB and already of the pictures' size, or in
    their own shape where the model reads that, with one caption for all, one each, or none; masks are of
    their references' size.

    digests: SHA-256 of each reference's pixels, as the model sees them, with its mask and strength; taken
    from the references.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    references: tuple[Image.Image | Reference, ...]
    captions: tuple[str, ...]
    sampling: SizedSampling
    digests: tuple[str, ...] = ()
    output: Output = Output()

    def __post_init__(self) -> None:
        if self.references:
            object.__setattr__(self, "digests", tuple(_digest(each) for each in self.references))

    @property
    def key(self) -> Hashable:
        """Pictures of asks with the same key can be computed in one call."""
        return self.sampling, self.captions, self.digests

    @property
    def bytes(self) -> int:
        """Memory that the references hold."""
        return size_of(picture for each in self.references for picture in _pictures(each))


def _pictures(reference: Image.Image | Reference) -> list[Image.Image]:
    """Return a reference's pixels and its mask."""
    whole = reference if isinstance(reference, Reference) else Reference(reference)
    return [each for each in (whole.picture, whole.mask) if isinstance(each, Image.Image)]


def _digest(reference: Image.Image | Reference) -> str:
    made = hashlib.sha256(b"".join(each.tobytes() for each in _pictures(reference)))
    if isinstance(reference, Reference):
        made.update(repr((reference.strength, reference.subject, reference.region)).encode())
    return made.hexdigest()


def size_of(pictures: Iterable[Image.Image | None]) -> int:
    """Return bytes of the pixels of RGB pictures."""
    return sum(3 * each.width * each.height for each in pictures if each is not None)


class Job:
    """An ask on its way. Whoever has its `key` may see its pictures. Only the engine changes it; `listeners`
    are called after each change, from any thread, and must be quick."""

    def __init__(self, ask: Ask, client: str, deadline: float, now: float) -> None:
        self.id = secrets.token_urlsafe(16)
        self.key = secrets.token_urlsafe(16)
        self.ask = ask
        self.client = client
        self.created = int(time.time())
        self.deadline = deadline
        self.submitted = now
        self.started: float | None = None
        self.ended: float | None = None
        self.state: State = "queued"
        self.error: JeDiError | None = None
        self.pictures: list[Kept | None] = [None] * len(ask.prompts)
        self.previews: list[Image.Image | None] = [None] * len(ask.prompts)
        self.wants_previews = False
        self.steps = [0] * len(ask.prompts)
        self.taken = 0
        self.listeners: list[Callable[[], None]] = []

    @property
    def is_over(self) -> bool:
        return self.ended is not None

    @property
    def steps_left(self) -> int:
        """Steps until all pictures are there."""
        return 0 if self.is_over else self.ask.sampling.steps * len(self.steps) - sum(self.steps)

    @property
    def progress(self) -> float:
        """Share of the steps that are done, 0 to 1."""
        return sum(self.steps) / (self.ask.sampling.steps * len(self.steps))

    def result(self) -> list[Image.Image]:
        """Return the pictures, in the order of the prompts. Raises the JeDiError that ended the job."""
        if self.error is not None:
            raise self.error
        return [picture.open() for picture in self.pictures if picture is not None]

    @property
    def done(self) -> list[int]:
        """Numbers of the pictures that are finished, also where the job has not come to its end."""
        return [number for number, picture in enumerate(self.pictures) if picture is not None]

    @property
    def kept_bytes(self) -> int:
        return sum(picture.bytes for picture in self.pictures if picture is not None)

    def delete(self) -> None:
        """Delete the pictures' files."""
        for picture in self.pictures:
            if picture is not None:
                picture.delete()

    def let_go(self) -> None:
        """Drop what a job that is over no longer needs; finished pictures and references' digests stay."""
        self.ask = replace(self.ask, references=())
        self.previews = [None] * len(self.previews)

    def tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()
