"""Print what calls are estimated to take beside what they take, on the clock and of the processors' time.

python tools/cost_estimates.py --threads 1
"""

import time
from dataclasses import dataclass

import torch
import tyro
from PIL import Image

from jedi_diffusion import costs, models
from jedi_diffusion.calls import Call, run_call
from jedi_diffusion.options import SizedSampling

CALLS = ((1, 1, 10), (1, 3, 10), (2, 1, 4), (4, 1, 1))
"""Sides as multiples of the model's own, references, steps."""


@dataclass(frozen=True)
class Options:
    """Estimates of the time of calls against the fastest of three."""

    model: str = "toybox"
    """"toybox" (bundled), a folder, or a Hub id."""
    threads: int = 1
    """Threads of torch."""


def main() -> None:
    given = tyro.cli(Options)
    torch.set_num_threads(given.threads)
    pipe = models.load_model(given.model, torch.device("cpu"), torch.float32)
    own = models.own_size(pipe)
    begun = time.perf_counter()
    figures = costs.measure(pipe, own)
    print(f"measured in {time.perf_counter() - begun:.1f} s")
    print("side  references  steps  estimated  clock  processors")
    for multiple, references, steps in CALLS:
        side = multiple * own
        how = SizedSampling(height=side, width=side, steps=steps)
        photos = [Image.new("RGB", (side, side), "gray")] * references
        taken = []
        for _ in range(3):
            clock, work = time.perf_counter(), time.process_time()
            run_call(pipe, Call(["a robot"], [0], photos, ["a"], how), lambda step, latents: None)
            taken.append((time.perf_counter() - clock, time.process_time() - work))
        clock, work = (min(each) for each in zip(*taken, strict=True))
        estimated = figures.seconds(how, 1, references)
        print(f"{side:4}  {references:10}  {steps:5}  {estimated:9.2f}  {clock:5.2f}  {work:10.2f}")


if __name__ == "__main__":
    main()
