"""What `jedi generate --dry-run` says: what would be done, with what of the model's own, and what it takes.

Everything follows from the model's configuration files and the headers of its weights; nothing is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from jedi_diffusion import devices, models
from jedi_diffusion.costs import free_memory
from jedi_diffusion.flops import SamplingFlops, count_sampling, counted, peak_bytes
from jedi_diffusion.joint.guidance import Guidance, plan_guidance
from jedi_diffusion.weights import parameter_counts

if TYPE_CHECKING:
    from jedi_diffusion.cli.options import GenerateOptions
    from jedi_diffusion.pipeline import JeDiPipeline

SHOWN = (
    "steps",
    "guidance",
    "guidance_mode",
    "image_guidance",
    "coupling",
    "null_set",
    "temperature",
    "size",
)
"""Settings that are the model's own where nothing is said."""
GIB = 2**30
SIDE, LEAST = 1024, 0.2
"""Of the matrices by whose product a device's speed is measured, and seconds that it takes at least."""


def describe(
    sketch: JeDiPipeline,
    given: GenerateOptions,
    chosen: GenerateOptions,
    folder: str,
    photos: Sequence[tuple[str, Image.Image]],
) -> str:
    """Return the plan in lines, and what it takes.

    sketch: `models.outline` of the model, in `folder`. given: options as they were typed; chosen: with the
    model's own in the place of those that were not. photos: references by their paths. Raises JeDiError.
    """
    device = devices.pick_device(given.device)
    dtype = devices.pick_dtype(given.dtype, device)
    side = chosen.size or 0
    pixels = sketch.backbone.fit_references([picture for _, picture in photos], (side, side))
    kind = models.class_of(folder)
    state = "reads references as it is" if models.is_ready(kind) else "a single-image model, runs untrained"
    own = [f"{name} {getattr(chosen, name)}" for name in SHOWN if getattr(given, name) is None]
    typed = [f"{name} {getattr(given, name)}" for name in SHOWN if getattr(given, name) is not None]
    pictures = len(given.prompt) * given.images_per_prompt * given.choose_best
    together = "one set" if given.joint_targets else f"{min(given.batch, pictures)} at once"
    kept = f"; the best of each {given.choose_best} is kept" if given.choose_best > 1 else ""
    lines = [
        f"Model:      {given.model}: {kind} with a {type(sketch.network).__name__}; {state}",
        *(f"Adapters:   {source}, scale {scale:g}" for source, scale in map(models.with_scale, given.lora)),
        f"Its own:    {', '.join(own) or 'nothing: all is given'}",
        *([f"Given:      {', '.join(typed)}"] if typed else []),
        f"Pictures:   {pictures} of {side} x {side} pixels, {together}{kept}",
    ]
    for (path, picture), read in zip(photos, pixels, strict=True):
        size = f"{read.shape[2]} x {read.shape[1]}"
        lines.append(f"Reference:  {path}, {picture.width} x {picture.height} pixels, read as {size}")
    coupling = chosen.coupling or sketch.own_coupling
    lines += [f"Untrained:  {said}" for said in sketch.untrained(len(photos), coupling).values()]
    stride = sketch.vae_scale_factor
    sizes = [(each.shape[1] // stride, each.shape[2] // stride) for each in pixels]
    lines += estimates(sketch, chosen, folder, sizes, pictures, device, dtype)
    return "\n".join([*lines, "Nothing was made."])


def estimates(
    sketch: JeDiPipeline,
    chosen: GenerateOptions,
    folder: str,
    references: Sequence[tuple[int, int]],
    pictures: int,
    device: torch.device,
    dtype: torch.dtype,
) -> list[str]:
    """Lines on memory and time. references: their sizes in latents."""
    target = ((chosen.size or 0) // sketch.vae_scale_factor,) * 2
    targets = [target] * (pictures if chosen.joint_targets else 1)
    flops = count_sampling(sketch.backbone, targets, references)
    total = denoising(sketch, chosen, flops, len(references), 1 if chosen.joint_targets else pictures)
    latents = torch.empty(1, sketch.backbone.latent_channels, *target, device="meta")
    total += pictures * counted(lambda: sketch.decode_latents(latents))
    for sides in references:
        height, width = (side * sketch.vae_scale_factor for side in sides)
        pixels = torch.empty(1, 3, height, width, device="meta")
        total += counted(partial(sketch.encode_pictures, pixels))
    counts = parameter_counts(folder) if Path(folder).is_dir() else {}
    text = sum(count for name, count in counts.items() if name.startswith("text_encoder"))
    total += 2 * text * sketch.backbone.text_tokens * (len(set(chosen.prompt)) + 1)
    part = dtype.itemsize / 4  # shapes are counted in float32
    at_once = 1 if chosen.joint_targets else min(chosen.batch, pictures)
    branches = len(plan_of(chosen, len(references)).branches)
    read = [] if chosen.coupling == "cached" else references
    working = part * max(
        at_once * branches * peak_bytes(lambda: count_sampling(sketch.backbone, targets, read), sketch),
        at_once * peak_bytes(lambda: sketch.decode_latents(latents), sketch),
    )
    weights = dtype.itemsize * sum(counts.values())
    speed = measured_speed(device, dtype)
    return [
        f"Memory:     about {weights / GIB:.1f} GB for weights in {str(dtype).removeprefix('torch.')} and "
        f"{working / GIB:.1f} GB at work; {free_memory(device) / GIB:.1f} GB are free on {device}",
        f"Time:       about {total / speed:.0f} s for {total / 1e12:.3g} TFLOP, if {device} keeps the "
        f"{speed / 1e12:.2g} TFLOP/s of its matrix products",
    ]


def denoising(
    sketch: JeDiPipeline, chosen: GenerateOptions, flops: SamplingFlops, references: int, sets: int
) -> float:
    """Return operations of all sets of a run, which reads cached references once."""
    plan, steps = plan_of(chosen, references), chosen.steps or 1
    coupling = chosen.coupling if references and chosen.coupling else "joint"
    null_set = "single" if sketch.backbone.clean_references else chosen.null_set or "joint"
    captioned = bool(chosen.reference_prompt) or sketch.backbone.reads_empty_captions("cached")
    first = flops.of(plan, steps, coupling, null_set, captioned=captioned)
    return first + (sets - 1) * flops.of(plan, steps, coupling, null_set, is_kept=True)


def plan_of(chosen: GenerateOptions, references: int) -> Guidance:
    """Return the guidance of a run."""
    how = chosen.at(chosen.size or 0, chosen.size or 0)
    return plan_guidance(
        how.guidance_mode,
        how.guidance,
        how.image_guidance,
        (how.guidance_start, how.guidance_stop),
        pictures_matter=references > 0 or chosen.joint_targets,
        match_norms=how.match_norms,
    )


def measured_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second of a product of matrices on a device."""
    left, right = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < LEAST:
        start = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best
