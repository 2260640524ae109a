"""Seconds a picture, and operations, over plain text-to-image: every form of reading references, any family.

"plain" is what the stock model computes: no reference, sets of one, guidance on the text as the model has it.
In "joint" every step runs the references; "cached" runs them once, and "kept" at an earlier picture
(`encode_references`), of which "a quarter" of the tokens are read. All forms take turns in one process, so
that other load on the machine falls on all of them; ratios are taken within a turn. "denoising" runs from
the first forward to the last step, a pass over the references included; "call" is the whole call, with
pictures and captions encoded and the result decoded. Operations are those of denoising, counted on shapes.
On a CPU no more time counts than its cores worked for it: what others had of them meanwhile does not.

Prints a table and, as the last line, a JSON object:
  cached_3_over_plain    ratio of whole calls
  seconds_per_picture    whole call with one reference in the fastest form
  flops_over_plain       by form, of denoising
  worst_time_over_flops  largest of (time ratio / FLOP ratio) of denoising
With --count nothing is loaded or run, and flops_over_plain alone is printed: configuration files are enough.

    python benchmarks/sampling.py [--model toybox] [--steps 25] [--repetitions 5] [--size 128] [--device cpu]
    python benchmarks/sampling.py --model FOLDER --count
"""

import argparse
import json
import logging
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from jedi_diffusion import Reference, devices, models
from jedi_diffusion.backbones import family_of
from jedi_diffusion.flops import count_sampling
from jedi_diffusion.joint.guidance import Guidance, plan_guidance
from jedi_diffusion.joint.references import EncodedReferences
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_toybox import folder_of

PROMPT, REFERENCE_PROMPT = "a robot on the beach", "a robot"
PLAIN, QUARTER = "plain", 0.25


@dataclass
class Form:
    """A way to sample, and the seconds that it took: whole calls, and denoising alone.

    share: of each reference's tokens. flops: of denoising.
    """

    references: int
    settings: dict[str, Any]
    is_kept: bool = False
    share: float = 1.0
    flops: float = 0.0
    call: list[float] = field(default_factory=list)
    denoising: list[float] = field(default_factory=list)


def forms(pipe: JeDiPipeline) -> dict[str, Form]:
    """Return the forms by name: one joint form where references shown clean alone leave no null branch."""
    table = {PLAIN: Form(0, {})}
    for count in (1, 3):
        if pipe.backbone.clean_references:
            table[f"joint, {count}"] = Form(count, {"coupling": "joint"})
        else:
            for null_set, name in (("joint", "null joint (paper)"), ("single", "null single")):
                table[f"joint, {name}, {count}"] = Form(count, {"coupling": "joint", "null_set": null_set})
        table[f"cached, {count}"] = Form(count, {"coupling": "cached"})
        table[f"kept, {count}"] = Form(count, {}, is_kept=True)
    table["kept, a quarter, 3"] = Form(3, {}, is_kept=True, share=QUARTER)
    return table


def main() -> None:
    options = parse()
    logging.getLogger("jedi_diffusion").setLevel(logging.ERROR)
    models.quiet_libraries()
    if options.threads:
        torch.set_num_threads(options.threads)
    sketch = models.outline(folder_of(options.model))
    size = options.size or models.own_size(sketch)
    steps = options.steps or sketch.own_sampling.steps
    table = forms(sketch)
    for form in table.values():
        form.flops = count(sketch, form, size, steps)
    ratios = {name: round(form.flops / table[PLAIN].flops, 4) for name, form in table.items()}
    if options.count:
        for name, ratio in ratios.items():
            print(f"{name:<30} {ratio:>8.3f}")
        print(json.dumps({"flops_over_plain": ratios}))
        return
    device = devices.pick_device(options.device)
    dtype = devices.pick_dtype(options.dtype, device)
    pipe = models.load_model(options.model, device, dtype)
    kept = {name: encode(pipe, form, size) for name, form in table.items() if form.is_kept}
    for name, form in table.items():
        run(pipe, form, size, min(2, steps), kept.get(name))
    for _ in range(options.repetitions):
        for name, form in table.items():
            denoising, call = run(pipe, form, size, steps, kept.get(name))
            form.denoising.append(denoising)
            form.call.append(call)
    print(
        f"{options.model}, one {size}x{size} picture, {steps} steps, {dtype} on {device}, "
        f"{torch.get_num_threads()} threads, median (min to max) of {options.repetitions}"
    )
    show(table)
    one = [statistics.median(form.call) for form in table.values() if form.references == 1]
    plain = table[PLAIN]
    figures = {
        "cached_3_over_plain": round(over(table["cached, 3"].call, plain.call), 4),
        "seconds_per_picture": round(min(one), 4),
        "flops_over_plain": ratios,
        "worst_time_over_flops": round(max(over_flops(form, plain) for form in table.values()), 4),
    }
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="toybox", help="toybox (bundled), a folder, or a Hub id")
    parser.add_argument("--steps", type=int, help="the model's own if not given")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--size", type=int, help="side in pixels; the model's own if not given")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto")
    parser.add_argument("--count", action="store_true", help="count operations alone")
    return parser.parse_args()


def references(form: Form, size: int) -> list[Reference]:
    """Noise of the pictures' size; of those that are not read whole, the upper part."""
    draw, mask = np.random.default_rng(0), None
    if form.share < 1:
        mask = np.zeros((size, size), bool)
        mask[: round(form.share * size)] = True
    made = [draw.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(form.references)]
    return [Reference(Image.fromarray(each), mask=mask) for each in made]


def captions(pipe: JeDiPipeline, form: Form) -> str | None:
    """Of references: none where the family was trained with references without any."""
    return None if pipe.backbone.clean_references or not form.references else REFERENCE_PROMPT


def encode(pipe: JeDiPipeline, form: Form, size: int) -> EncodedReferences:
    return pipe.encode_references(references(form, size), captions(pipe, form), size, size)


def count(sketch: JeDiPipeline, form: Form, size: int, steps: int) -> float:
    """Return operations of denoising."""
    stride, family = sketch.vae_scale_factor, family_of(sketch.network)
    pictures = [each.picture for each in references(form, size)]
    pixels = sketch.backbone.fit_references(pictures, (size, size))
    sizes = [(each.shape[1] // stride, each.shape[2] // stride) for each in pixels]
    backbone = family(sketch.network)
    backbone.clean_references = sketch.backbone.clean_references
    flops = count_sampling(backbone, [(size // stride,) * 2], sizes, share=form.share)
    coupling = "cached" if form.is_kept else form.settings.get("coupling", "joint")
    null_set = form.settings.get("null_set", sketch.own_sampling.null_set)
    if backbone.clean_references or not form.references:
        null_set = "single"
    captioned = captions(sketch, form) is not None
    return flops.of(guidance_of(sketch, form), steps, coupling, null_set, form.is_kept, captioned)


def guidance_of(sketch: JeDiPipeline, form: Form) -> Guidance:
    own = sketch.own_sampling
    return plan_guidance(
        own.guidance_mode, own.guidance, own.image_guidance, pictures_matter=form.references > 0
    )


def run(
    pipe: JeDiPipeline, form: Form, size: int, steps: int, kept: EncodedReferences | None
) -> tuple[float, float]:
    """Return seconds of one call: from its first forward to its last step, and in all. kept: encoded
    references.
    """
    marks: list[tuple[float, float]] = []

    def mark(*_: object) -> None:
        wait(pipe.device)
        marks.append((time.perf_counter(), time.process_time()))

    def after_step(_pipe: Any, step: int, _timestep: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
        if step == steps - 1:
            mark()
        return {}

    def before_forward(*_: object) -> None:
        if not marks:
            mark()

    hook = pipe.network.register_forward_pre_hook(before_forward)
    wait(pipe.device)
    start = time.perf_counter(), time.process_time()
    pipe(
        PROMPT,
        references=references(form, size) if kept is None else kept,
        reference_prompts=captions(pipe, form) if kept is None else None,
        num_inference_steps=steps,
        height=size,
        width=size,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=after_step,
        **form.settings,
    )
    end = time.perf_counter(), time.process_time()
    hook.remove()
    return between(*marks[:2], pipe.device), between(start, end, pipe.device)


def between(start: tuple[float, float], end: tuple[float, float], device: torch.device) -> float:
    """Seconds that passed, and on a CPU no more than those that its cores worked."""
    passed, worked = (after - before for before, after in zip(start, end, strict=True))
    return min(passed, worked) if device.type == "cpu" else passed


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def show(table: dict[str, Form]) -> None:
    print(
        f"{'form, references':<30} {'denoising, s':>24} {'over plain':>11} {'FLOPs':>7} {'time/FLOPs':>11} "
        f"{'call, s':>24} {'over plain':>11}"
    )
    plain = table[PLAIN]
    for name, form in table.items():
        print(
            f"{name:<30} {spread(form.denoising):>24} {over(form.denoising, plain.denoising):>11.3f} "
            f"{form.flops / plain.flops:>7.3f} {over_flops(form, plain):>11.3f} "
            f"{spread(form.call):>24} {over(form.call, plain.call):>11.3f}"
        )


def over(times: list[float], plain: list[float]) -> float:
    """Return the median of the ratios of one turn each."""
    return statistics.median(a / b for a, b in zip(times, plain, strict=True))


def over_flops(form: Form, plain: Form) -> float:
    return over(form.denoising, plain.denoising) / (form.flops / plain.flops)


def spread(times: list[float]) -> str:
    return f"{statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f})"


if __name__ == "__main__":
    main()
