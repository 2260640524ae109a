"""The pipeline as the engine runs it, and what clients are told about its model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from jedi_diffusion.app.jobs import Preview, Runner
from jedi_diffusion.calls import Call, run_call
from jedi_diffusion.costs import Costs
from jedi_diffusion.options import Sampling, SizedSampling
from jedi_diffusion.references import OwnShape
from jedi_diffusion.remembered import ReferenceMemory

if TYPE_CHECKING:
    from torch import Tensor

    from jedi_diffusion.pipeline import JeDiPipeline

GAIN = 1.1
"""Speed-up of larger calls from which they are worth it; below it each picture is a call of its own, which
keeps it bit-equal to its solo run."""
BATCHES = (2, 4, 8)
TRIAL_STEPS = 2
LOOK = 0.1
"""Seconds inside a step after which a call is asked whether anybody still waits for it."""


@dataclass(frozen=True)
class ModelCard:
    """What identifies a model, and what it can do: side of its own pictures and pixels that sides are
    multiples of. reader: a `inputs.PromptReader`, None for a model that reads all of every prompt.
    temperature: of the first noise, where a call names none. own: its settings where a request says nothing.
    own_shape: how it reads references that keep their shape, None where they are cut to the pictures'.
    costs: what its calls cost; memory: the bytes that are free for them where it runs."""

    name: str
    fingerprint: str
    scheduler: str
    size: int
    factor: int
    about: str = ""
    reader: Any = None
    temperature: float = 1.0
    own: Sampling = field(default_factory=Sampling)
    own_shape: OwnShape | None = None
    costs: Costs | None = None
    memory: int | None = None

    def unknown_words(self, prompts: Sequence[str]) -> list[str]:
        """Return words that a model with a closed vocabulary does not know and ignores, each once."""
        return [] if self.reader is None else self.reader.unknown_words(prompts)

    def cut_off(self, prompts: Sequence[str]) -> list[str]:
        """Return a sentence for each prompt that is too long for the model."""
        return [] if self.reader is None else self.reader.cut_off(prompts)

    def text_tokens(self, prompts: Sequence[str]) -> int:
        """Return tokens that the model reads of all these together; 0 where it has no reader."""
        return 0 if self.reader is None else self.reader.tokens(prompts)

    def image_tokens(self, width: int, height: int) -> int:
        """Return places of a picture that the model computes with: one for each square of `factor` pixels."""
        return (width // self.factor) * (height // self.factor)


class PipelineRunner:
    """Runs a JeDiPipeline, which nobody else may use meanwhile.

    references_bytes: memory for references of clients who send the same again (`ReferenceMemory`).
    """

    def __init__(self, pipe: JeDiPipeline, references_bytes: int = 0) -> None:
        self.pipe = pipe
        self.memory = ReferenceMemory(references_bytes)

    def run(self, call: Call, after_step: Callable[[int, Preview], None]) -> list[Image.Image]:
        """See `Runner`. Raises JeDiError."""

        latest, told, is_saying = -1, time.monotonic(), False
        preview: Preview = tuple

        def say() -> None:
            nonlocal told, is_saying
            is_saying = True  # a preview is decoded by the same layers, between which nothing is said then
            try:
                after_step(latest, preview)
            finally:
                told, is_saying = time.monotonic(), False

        def look(step: int, clean_latents: Tensor) -> None:
            nonlocal latest, preview
            latest, preview = step, lambda: self._decode(clean_latents)
            say()

        def say_again() -> None:
            if not is_saying and time.monotonic() - told > LOOK:
                say()

        return run_call(self.pipe, call, look, during_step=say_again, memory=self.memory)

    def _decode(self, latents: Tensor) -> list[Image.Image]:
        return self.pipe.image_processor.postprocess(self.pipe.decode_latents(latents), output_type="pil")


def measured_batch(
    runner: Runner, size: int, most: int = max(BATCHES), clock: Callable[[], float] = time.perf_counter
) -> int:
    """Return how many pictures to compute in one call: more than one only where it is faster, 1 to `most`.

    Runs the model for a few steps, which also warms it up.
    """
    counts = [1, *(count for count in BATCHES if count <= most)]
    seconds = {count: _seconds_a_picture(runner, size, count, clock) for count in counts}
    best = min(counts, key=lambda count: seconds[count])
    return best if seconds[1] >= GAIN * seconds[best] else 1


def _seconds_a_picture(runner: Runner, size: int, count: int, clock: Callable[[], float]) -> float:
    """Return the better of two trials, after one that warms up."""
    sampling = SizedSampling(height=size, width=size, steps=TRIAL_STEPS)
    reference = Image.new("RGB", (size, size), "gray")
    call = Call(["a"] * count, list(range(count)), [reference], ["a"], sampling)
    times = []
    for _ in range(3):
        start = clock()
        runner.run(call, lambda step, preview: None)
        times.append(clock() - start)
    return min(times[1:]) / count
