"""Sampling: a pure function of a denoiser, a scheduler, conditions and noise (section 3.3, eqs. 3 and 4).

Letters: S sets; I pictures of all sets, T of them targets; B rows of one forward, all branches of guidance;
C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jedi_diffusion.joint.cache import CacheView, ReferenceCache
from jedi_diffusion.joint.denoiser import Denoiser
from jedi_diffusion.joint.guidance import Condition, Guidance
from jedi_diffusion.joint.process import Scheduler, process_of
from jedi_diffusion.joint.record import AttentionRecord, AttentionWriter
from jedi_diffusion.options import Coupling, NullSet, in_interval
from jedi_diffusion.sets import Conditions, SetBatch


@dataclass(frozen=True)
class Step:
    """A step that is done: its number from 0, its timestep (), and the targets (T, C, H, W) as they are.

    latents: what goes on to the next step, in the scheduler's own scale. clean: what the network took the
    clean latents for at this step, which shows early what the picture will be.
    """

    number: int
    timestep: Tensor
    latents: Tensor
    clean: Tensor


StepCallback = Callable[[Step], Tensor | None]


@dataclass(frozen=True)
class CachedReferences:
    """References that ran once (coupling "cached").

    cache: a filled ReferenceCache. set_of: the number of the reference set that a branch with captions (True)
    or with empty captions (False) reads.
    """

    cache: ReferenceCache
    set_of: Mapping[bool, int]


@dataclass(frozen=True)
class SamplingPlan:
    """What to sample and how to guide it.

    batch: the sets with all their conditions; for coupling "cached" the targets alone, as sets of one.
    null: what images read without their captions, one row for all (the empty caption's) or a row each; empty
    where no branch of guidance reads it.
    null_set: what a branch without references keeps: "joint" the whole set, its references re-noised but not
    shown as references; "single" each target as a set of one. Cached references are never noised, so there is
    nothing to keep and both are the same.
    attention_record: takes down where targets look, in the branch with most conditions.
    temperature: what the first noise is scaled by. Below 1 samples are nearer to their mean: less varied, and
    calmer where a model knows little; 1 samples what the model has learned.
    references_start, references_stop: references are read between these shares of the steps alone; at the
    others a set is its targets.
    """

    batch: SetBatch
    null: Conditions
    guidance: Guidance
    null_set: NullSet = "joint"
    cached: CachedReferences | None = None
    attention_record: AttentionRecord | None = None
    temperature: float = 1.0
    references_start: float = 0.0
    references_stop: float = 1.0

    def reads_at(self, step: int, steps: int) -> bool:
        """Return whether references are read at a step, from 0, out of `steps`."""
        return in_interval(step, steps, self.references_start, self.references_stop)

    def null_of(self, rows: Sequence[int] | Tensor) -> Conditions:
        """Return what the images of `batch` with these numbers read without their captions."""
        return {name: value if len(value) == 1 else value[rows] for name, value in self.null.items()}


def sample(
    denoiser: Denoiser,
    scheduler: Scheduler,
    plan: SamplingPlan,
    noise: Tensor,
    generators: Sequence[torch.Generator],
    callback: StepCallback | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Return the targets' clean latents (T, C, H, W), in the order of the batch; as far as they came if
    stopped.

    scheduler: one of diffusers' after `set_timesteps`; its state is used up. noise (I, C, H, W):
    see `draw_noise`. generators: one a target, for schedulers that add noise at each step. callback(step)
    runs after each step and may return other latents. should_stop() is asked before each.
    """
    layouts: dict[tuple[Guidance, bool], _Layout] = {}
    coupling: Coupling = "joint" if plan.cached is None else "cached"
    given = plan.batch.is_reference
    references, reference_noise = plan.batch.latents[given], noise[given]
    process = process_of(scheduler)
    latents = noise[~given] * (process.initial_scale(scheduler) * plan.temperature)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # else repeated timesteps would be looked up by value
    options = _step_options(scheduler, generators)
    noisy = torch.empty_like(noise)
    for step, timestep in enumerate(scheduler.timesteps):
        if should_stop():
            break
        guidance = plan.guidance.at(step, len(scheduler.timesteps))
        reads = plan.reads_at(step, len(scheduler.timesteps))
        if (guidance, reads) not in layouts:
            layouts[guidance, reads] = _lay_out(replace(plan, guidance=guidance), reads)
        layout = layouts[guidance, reads]
        level = process.level_of_step(scheduler, timestep, noise)
        noisy[~given] = process.network_input(scheduler, latents, timestep)
        noisy[given] = level.add_noise(references, reference_noise)
        record = _recording(plan, layout, step) if reads else None
        time = process.network_time(scheduler, timestep)
        predictions = denoiser(
            noisy[layout.rows], time, layout.batch, coupling, layout.reference_cache, record
        )
        guided = layout.guidance.combine([predictions[rows] for rows in layout.targets])
        latents = scheduler.step(guided, timestep, latents, **options, return_dict=False)[0]
        if callback is not None:
            clean = process.clean(noisy[~given], guided, level)
            changed = callback(Step(step, timestep, latents, clean))
            latents = latents if changed is None else changed
    return latents


def draw_noise(
    batch: SetBatch, generators: Sequence[torch.Generator], latents: Tensor | None = None
) -> Tensor:
    """Return noise for every picture, (I, C, H, W) float32 on the batch's device.

    A target's noise comes from its own generator, or is its row of `latents` (T, C, H, W) where these are
    given. A set's references then draw from its first target's generator, so an image is identical whether
    sampled alone or in a batch. Padding beyond an image's own size stays zero.
    """
    noise = torch.zeros_like(batch.latents, dtype=torch.float32)
    extents = batch.extents
    given = batch.is_reference.tolist()
    remaining = iter(generators)
    start = 0
    for size in batch.set_sizes:
        rows = range(start, start + size)
        own = {row: next(remaining) for row in rows if not given[row]}
        first = next(iter(own.values()), None)
        drawn = [] if latents is not None else list(own.items())
        for row, generator in [*drawn, *((row, first) for row in rows if given[row])]:
            device = generator.device if generator else None
            height, width = extents[row]
            drawn_noise = torch.randn((noise.shape[1], height, width), generator=generator, device=device)
            noise[row, :, :height, :width] = drawn_noise
        start += size
    if latents is not None:
        height, width = latents.shape[-2:]
        noise[~batch.is_reference, :, :height, :width] = latents.to(noise)
    return noise


@dataclass(frozen=True)
class _Layout:
    """All branches of guidance as one batch: which pictures (B,) it shows, and where targets are."""

    guidance: Guidance
    batch: SetBatch
    rows: Tensor
    targets: list[Tensor]
    reference_cache: CacheView | None


def _lay_out(plan: SamplingPlan, reads: bool) -> _Layout:
    """Return all branches as one batch; reads: whether the references are in it."""
    batch = plan.batch
    every = torch.arange(len(batch.mask), device=batch.mask.device)
    is_target = ~batch.is_reference
    counts = [int(flags.sum()) for flags in is_target.split(batch.set_sizes)]
    of_targets = tuple(count for count in counts if count)
    guidance = plan.guidance
    targets_matter = plan.null_set == "single" and max(of_targets, default=0) > 1
    if not reads and not targets_matter:
        guidance = guidance.without_references()
    branches, rows, targets, index, start = [], [], [], [], 0
    for condition in guidance.branches:
        if not condition.pictures and plan.null_set == "single":
            kept, sizes = every[is_target], (1,) * sum(counts)
        else:
            kept, sizes = (every, batch.set_sizes) if reads else (every[is_target], of_targets)
        branches.append(_branch(plan, condition, kept, sizes))
        rows.append(kept)
        targets.append(start + torch.nonzero(is_target[kept]).flatten())
        start += len(kept)
        if plan.cached is not None:
            read = condition.pictures and reads
            index += [plan.cached.set_of[condition.text] if read else None] * len(kept)
    view = None if plan.cached is None else plan.cached.cache.for_sets(index)
    return _Layout(guidance, SetBatch.concatenate(branches), torch.cat(rows), targets, view)


def _branch(plan: SamplingPlan, condition: Condition, kept: Tensor, sizes: Sequence[int]) -> SetBatch:
    """Return one branch's conditions; what it drops is null: empty text, M = 1 and zero latents (after eq.
    3).
    """
    chosen = plan.batch.select(kept, sizes)
    if not condition.text:
        chosen = chosen.conditioned(plan.null_of(kept))
    if not condition.pictures:
        latents, mask = torch.zeros_like(chosen.latents), torch.ones_like(chosen.mask)
        chosen = replace(chosen, latents=latents, mask=mask)
    return chosen


def _recording(plan: SamplingPlan, layout: _Layout, step: int) -> AttentionWriter | None:
    """Return what records the last branch of guidance, the one with all conditions that count."""
    if plan.attention_record is None:
        return None
    height, width = plan.batch.latents.shape[-2:]
    return plan.attention_record.writer(step, layout.targets[-1].tolist(), (height, width))


def _step_options(
    scheduler: Scheduler, generators: Sequence[torch.Generator]
) -> dict[str, list[torch.Generator]]:
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": list(generators)} if takes_generator else {}
