"""A runner without a network: pictures are a function of prompt, seed and references, steps take no time."""

import hashlib
import threading
import time
from collections.abc import Callable

from PIL import Image

from jedi_diffusion.app.jobs import Ask, Job
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.calls import Call
from jedi_diffusion.errors import JeDiError
from jedi_diffusion.options import SizedSampling
from jedi_diffusion.references import Reference

SIDE = 16
CARD = ModelCard("toybox", "f" * 64, "DDIMScheduler", SIDE, 8, about="It knows robots.")


def picture_of(
    prompt: str, seed: int, references: tuple[Image.Image | Reference, ...] = (), side: int = SIDE
) -> Image.Image:
    shown = [each.picture if isinstance(each, Reference) else each for each in references]
    parts = [prompt.encode(), str(seed).encode(), *(each.tobytes() for each in shown)]
    red, green, blue = hashlib.sha256(b"|".join(parts)).digest()[:3]
    return Image.new("RGB", (side, side), (red, green, blue))


class FakeRunner:
    """step_seconds: sleep a step. `gate`: where cleared, steps wait until it is set. calls: what it was
    asked, in order. A prompt "fail" fails as a user's error would, "crash" as a fault would."""

    def __init__(self, step_seconds: float = 0.0) -> None:
        self.step_seconds = step_seconds
        self.gate = threading.Event()
        self.gate.set()
        self.at_gate = threading.Event()
        self.calls: list[Call] = []
        self.steps = 0

    def run(self, call: Call, after_step: Callable) -> list[Image.Image]:
        self.calls.append(call)
        if "fail" in call.prompts:
            raise JeDiError("The prompt is no good.")
        if "crash" in call.prompts:
            raise RuntimeError("a secret of the machine")
        pairs = list(zip(call.prompts, call.seeds, strict=True))
        side = call.sampling.width
        for step in range(call.sampling.steps):
            self.at_gate.set()
            self.gate.wait(timeout=30)
            time.sleep(self.step_seconds)
            self.steps += 1
            after_step(step, lambda: [Image.new("RGB", (side, side), "gray") for _ in pairs])
        return [picture_of(prompt, seed, tuple(call.references), side) for prompt, seed in pairs]


def ask(*prompts: str, seed: int = 0, references: tuple[Image.Image, ...] = (), steps: int = 4) -> Ask:
    seeds = tuple(range(seed, seed + len(prompts)))
    return Ask(
        tuple(prompts),
        seeds,
        references,
        ("a",) * bool(references),
        SizedSampling(height=SIDE, width=SIDE, steps=steps),
    )


def wait(job: Job, seconds: float = 20.0) -> Job:
    end = time.monotonic() + seconds
    while not job.is_over:
        assert time.monotonic() < end, f"the job is still {job.state}"
        time.sleep(0.002)
    return job
