"""Seconds a picture: plain text-to-image, the paper's form and the cached form, with 1 and 3 references.

"plain" is what the stock model computes: no reference, sets of one, classifier-free guidance. All forms take
turns in one process, so that other load on the machine falls on all of them; ratios are taken within a turn.
"denoising" runs from the first forward to the last step, the cached form's pass over its references included;
"call" is the whole call, with pictures and captions encoded and the result decoded.

Prints a table and, as the last line, {"cached_3_over_plain": ratio of whole calls, "seconds_per_picture":
whole call with one reference in the fastest form}.

    python benchmarks/sampling.py [--model toybox] [--steps 25] [--repetitions 5] [--size 128] [--device cpu]
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from jedi_diffusion import devices, models

PROMPT, REFERENCE_PROMPT = "a robot on the beach", "a robot"
PLAIN = "plain"


@dataclass
class Form:
    """A way to sample, and the seconds that it took: whole calls, and denoising alone."""

    references: int
    settings: dict[str, Any]
    call: list[float] = field(default_factory=list)
    denoising: list[float] = field(default_factory=list)


def forms() -> dict[str, Form]:
    table = {PLAIN: Form(0, {})}
    for count in (1, 3):
        table[f"joint, null joint (paper), {count}"] = Form(count, {"coupling": "joint", "null_set": "joint"})
        table[f"joint, null single, {count}"] = Form(count, {"coupling": "joint", "null_set": "single"})
        table[f"cached, {count}"] = Form(count, {"coupling": "cached"})
    return table


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = devices.pick_device(options.device)
    dtype = devices.pick_dtype(options.dtype, device)
    pipe = models.load_model(options.model, device, dtype)
    size = options.size or models.own_size(pipe)
    table = forms()
    for form in table.values():
        run(pipe, form, size, steps=min(2, options.steps))
    for _ in range(options.repetitions):
        for form in table.values():
            denoising, call = run(pipe, form, size, options.steps)
            form.denoising.append(denoising)
            form.call.append(call)
    print(
        f"{options.model}, one {size}x{size} picture, {options.steps} steps, {dtype} on {device}, "
        f"{torch.get_num_threads()} threads, median (min to max) of {options.repetitions}"
    )
    show(table)
    one = [statistics.median(form.call) for form in table.values() if form.references == 1]
    ratio = over(table["cached, 3"].call, table[PLAIN].call)
    print(json.dumps({"cached_3_over_plain": round(ratio, 4), "seconds_per_picture": round(min(one), 4)}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="toybox", help="toybox (bundled), a folder, or a Hub id")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--size", type=int, help="side in pixels; the model's own if not given")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto")
    return parser.parse_args()


def run(pipe: Any, form: Form, size: int, steps: int) -> tuple[float, float]:
    """Seconds of one call: from its first forward to its last step, and in all."""
    marks: list[float] = []

    def mark(*_: object) -> None:
        wait(pipe.device)
        marks.append(time.perf_counter())

    def after_step(_pipe: Any, step: int, _timestep: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
        if step == steps - 1:
            mark()
        return {}

    def before_forward(*_: object) -> None:
        if not marks:
            mark()

    hook = pipe.unet.register_forward_pre_hook(before_forward)
    wait(pipe.device)
    start = time.perf_counter()
    pipe(
        PROMPT,
        references=[torch.rand(3, size, size) for _ in range(form.references)],
        reference_prompts=REFERENCE_PROMPT,
        num_inference_steps=steps,
        height=size,
        width=size,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=after_step,
        **form.settings,
    )
    end = time.perf_counter()
    hook.remove()
    return marks[1] - marks[0], end - start


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def show(table: dict[str, Form]) -> None:
    print(
        f"{'form, references':<30} {'denoising, s':>24} {'over plain':>11} {'call, s':>24} {'over plain':>11}"
    )
    plain = table[PLAIN]
    for name, form in table.items():
        print(
            f"{name:<30} {spread(form.denoising):>24} {over(form.denoising, plain.denoising):>11.3f} "
            f"{spread(form.call):>24} {over(form.call, plain.call):>11.3f}"
        )


def over(times: list[float], plain: list[float]) -> float:
    """Median of the ratios of one turn each."""
    return statistics.median(a / b for a, b in zip(times, plain, strict=True))


def spread(times: list[float]) -> str:
    return f"{statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f})"


if __name__ == "__main__":
    main()
