"""What a call of the pipeline costs in memory and time, from short calls of the model itself.

Letters: R references; T targets; P pixels of a picture. Convolutions grow with the pictures that go through
the network, rows * P; coupled attention with the pairs of pictures that see each other, pairs * P^2.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from jedi_diffusion.calls import Call, run_call
from jedi_diffusion.options import SizedSampling

if TYPE_CHECKING:
    from jedi_diffusion.pipeline import JeDiPipeline

LEAST_SIDE = 384
"""Pixels of a side below which attention does not show yet how it grows."""
SLACK = 1.2
"""Kernels take memory of their own beside what is counted."""
TRIES = 4
"""Runs at a size, beside the first, of which the fastest counts."""
TRYING = 1.0
"""Seconds after which no further run is begun: a model as slow as that is run once at a size."""
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""Limit and use of a container's memory, in the two forms that Linux has."""


class Work(NamedTuple):
    """What one step of a call computes: pictures, pairs of them in all, and pairs of the largest set, whose
    scores are in memory at one time."""

    rows: int
    pairs: int
    widest: int
    pixels: int


class Growth(NamedTuple):
    """A cost that is `linear` a row's pixel, `square` a pair's pixel squared, and `constant` however little
    is computed."""

    linear: float
    square: float
    constant: float = 0.0

    def at(self, rows: int, pairs: int, pixels: int) -> float:
        return self.constant + self.linear * rows * pixels + self.square * pairs * pixels**2


@dataclass(frozen=True)
class Costs:
    """A model's own figures. memory: bytes of a call beside the weights; step: seconds of one step; rest:
    seconds of what a call does once, to encode and decode; coupling: the model's own. reference_pixels: of
    references that keep their own shape, at most; None where they have the pictures' size."""

    memory: Growth
    step: Growth
    rest: Growth
    coupling: str = "joint"
    reference_pixels: int | None = None

    def bytes(self, work: Work) -> int:
        """Return the memory that a call needs at most."""
        return int(SLACK * self.memory.at(work.rows, work.widest, work.pixels))

    def step_seconds(self, work: Work) -> float:
        return self.step.at(work.rows, work.pairs, work.pixels)

    def seconds(
        self, sampling: SizedSampling, targets: int, references: int, joint_targets: bool = False
    ) -> float:
        """Return the time that a call takes with nothing else on the machine; steps without guidance
        take less.
        """
        call = targets, references, joint_targets
        steps = sum(
            count * self.step_seconds(self._work(branches, sampling, *call))
            for branches, count in _branches(sampling, references > 0 or joint_targets).items()
        )
        work = self.work(sampling, *call)
        return steps + self.rest.at(work.rows, work.pairs, work.pixels)

    def work(
        self, sampling: SizedSampling, targets: int, references: int, joint_targets: bool = False
    ) -> Work:
        """Return the work of a call's largest step with so many pictures, if captions are not empty.

        Raises UsageError for guidance that makes no sense.
        """
        most = max(_branches(sampling, references > 0 or joint_targets))
        return self._work(most, sampling, targets, references, joint_targets)

    def _work(
        self, branches: int, sampling: SizedSampling, targets: int, references: int, joint_targets: bool
    ) -> Work:
        coupling = "joint" if joint_targets else sampling.coupling or self.coupling
        pixels = sampling.height * sampling.width
        if self.reference_pixels is not None:  # counted in pictures of the targets' size
            references = math.ceil(references * self.reference_pixels / pixels)
        if joint_targets:
            sets, size, seen = 1, references + targets, references + targets
        elif coupling == "cached":
            sets, size, seen = targets, 1, references + 1
        else:
            sets, size, seen = targets, references + 1, references + 1
        # References run once with coupling "cached"; they are encoded, and targets decoded, all at once.
        rows = max(branches * sets * size, 2 * references, 2 * targets)
        return Work(rows, branches * sets * size * seen, max(size * seen, references**2), pixels)


def _branches(sampling: SizedSampling, sets_differ: bool) -> Counter[int]:
    """Return how many steps of a call run so many branches of guidance."""
    from jedi_diffusion.joint.guidance import plan_guidance

    plan = plan_guidance(
        sampling.guidance_mode,
        sampling.guidance,
        sampling.image_guidance,
        (sampling.guidance_start, sampling.guidance_stop),
        pictures_matter=sets_differ,
        match_norms=sampling.match_norms,
    )
    return Counter(len(plan.at(step, sampling.steps).branches) for step in range(sampling.steps))


class Moment(NamedTuple):
    """Seconds on the clock, and seconds that processors have worked for this process."""

    clock: float
    work: float


class Times(NamedTuple):
    """Seconds of a step, and of the rest of a call."""

    step: float
    rest: float


class Trial(NamedTuple):
    """Bytes of a call, and its times."""

    memory: float
    step: float
    rest: float


def measure(pipe: JeDiPipeline, own_size: int) -> Costs:
    """Run the model for a step at three sizes: one target, and one reference where that has its size.

    Raises JeDiError.
    """
    factor = pipe.vae_scale_factor * pipe.backbone.size_multiple
    large = own_size if own_size >= LEAST_SIDE // 2 else LEAST_SIDE
    small = max(1, large // factor // 2) * factor
    least = max(1, small // factor // 4) * factor
    sides = (least, max(2 * least, small), max(3 * least, large // factor * factor))
    _timed_call(pipe, sides[0])  # warms up
    trials = [_trial(pipe, side) for side in sides]
    own_shape = pipe.backbone.own_shape
    rows, pairs = (2, 4) if own_shape is None else (1, 1)
    memory, step, rest = (
        _fitted(
            [
                (rows * side**2, pairs * side**4, trial[kind])
                for side, trial in zip(sides, trials, strict=True)
            ]
        )
        for kind in range(3)
    )
    pixels = None if own_shape is None else own_shape.pixels
    return Costs(memory, step, rest, pipe.config["coupling"], pixels)


def _fitted(points: Sequence[tuple[int, int, float]]) -> Growth:
    """Return the growth that comes closest to points (rows * P, pairs * P^2, cost > 0), no part of it
    negative: the least squares of relative errors, over all choices of parts (which are few)."""
    import numpy as np

    costs = np.array([cost for *_, cost in points])
    parts = np.array([(x, y, 1.0) for x, y, _ in points])
    scale = parts.max(axis=0)  # squares of pixels beside a 1
    parts /= scale * costs[:, None]
    best, least = Growth(0.0, 0.0), np.inf
    for chosen in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        factors, *_ = np.linalg.lstsq(parts[:, chosen], np.ones(len(points)))
        error = float(((parts[:, chosen] @ factors - 1) ** 2).sum())
        if (factors >= 0).all() and error < least:
            found = np.zeros(3)
            found[chosen] = factors / scale[chosen]
            best, least = Growth(*found.tolist()), error
    return best


def _trial(pipe: JeDiPipeline, side: int) -> Trial:
    """Return what a call with one step takes, in the fastest of several runs of it."""
    from jedi_diffusion.flops import MemoryCounter, networks_of

    with MemoryCounter(networks_of(pipe)) as memory:
        first = _timed_call(pipe, side)
    step, rest = _fastest(lambda: _timed_call(pipe, side), first)
    return Trial(memory.peak, step, rest)


def _fastest(run: Callable[[], Times], first: Times) -> Times:
    """Return the least seconds of a step and of the rest, each on its own, of a first run and of further
    ones, of which there are up to `TRIES` while all runs together have taken less than `TRYING` seconds.

    What else the machine does can make a run slower, never faster.
    """
    times = [first]
    while len(times) <= TRIES and sum(map(sum, times)) < TRYING:
        times.append(run())
    return Times(min(each.step for each in times), min(each.rest for each in times))


def _timed_call(pipe: JeDiPipeline, side: int) -> Times:
    marks: list[Moment] = []

    def mark(*_: Any) -> None:
        if pipe.device.type == "cuda":
            import torch

            torch.cuda.synchronize()
        marks.append(Moment(time.perf_counter(), time.process_time()))

    hooks = [pipe.network.register_forward_pre_hook(mark), pipe.network.register_forward_hook(mark)]
    sampling = SizedSampling(height=side, width=side, steps=1, guidance=1.0, coupling="joint")
    is_alone = pipe.backbone.own_shape is not None  # references then have a size of their own
    photos = [] if is_alone else [Image.new("RGB", (side, side), "gray")]
    call = Call(["a"], [0], photos, ["a"], sampling)
    mark()
    try:
        run_call(pipe, call, lambda step, latents: None)
    finally:
        for hook in hooks:
            hook.remove()
    mark()
    begin, step_begin, step_end, end = marks[0], *marks[-3:]
    is_processor = pipe.device.type == "cpu"
    before, step, after = (
        _seconds_alone(*pair, is_processor)
        for pair in ((begin, step_begin), (step_begin, step_end), (step_end, end))
    )
    return Times(step, before + after)


def _seconds_alone(begin: Moment, end: Moment, is_processor: bool) -> float:
    """Return what work takes with nothing else on the machine, at most: on processors no more than they
    worked for it, all of them together. Where more time has passed, others had them meanwhile.
    """
    passed, worked = end.clock - begin.clock, end.work - begin.work
    return min(passed, worked) if is_processor else passed


def free_memory(device: Any) -> int:
    """Return bytes that this process can still take on a torch device, as far as the machine says."""
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil

    free = psutil.virtual_memory().available
    for limit, use in CGROUPS:
        if limit.is_file() and use.is_file() and (most := limit.read_text().strip()).isdigit():
            free = min(free, int(most) - int(use.read_text()))
    if sys.platform != "win32":
        import resource

        most_addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most_addresses != resource.RLIM_INFINITY:
            free = min(free, most_addresses - psutil.Process().memory_info().vms)
    return max(0, free)
