"""What masks of references cost and give: unseen toybox subjects, with their exact masks.

Each pair runs twice from the same noise, with whole references and with the subject's tokens alone (coupling
"cached"), in turn, so that other load on the machine falls on both. Scores are those of `jedi toybox score`;
"more" is the identity of masked over whole references, pair by pair.

Prints a table and, as the last line, {"identity_gain": mean of more, "kept": share of what is kept of
references in memory, "seconds_over_whole": ratio of seconds a call}. With --count nothing runs: it prints,
for the bundled model and a 512 px UNet of Stable Diffusion 1.4's shape, what 50 steps of eq. 3 cost over
plain text-to-image, in operations counted on shapes, with whole references and a quarter of their tokens.

    python benchmarks/masks.py [--model toybox] [--pairs 40] [--references 3] [--steps 25] [--strength 1]
        [--size 128] [--share 0.5]
    python benchmarks/masks.py --count
"""

import argparse
import copy
import itertools
import json
import statistics
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from jedi_diffusion import JeDiPipeline, Reference, models, visibility
from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.flops import count_sampling
from jedi_diffusion.joint.guidance import plan_guidance
from jedi_diffusion.page.tables import plain
from jedi_diffusion.randomness import seeded_generator
from jedi_toybox import load_pipeline
from jedi_toybox.bulk import render_many
from jedi_toybox.encoders import BUNDLED, load_encoders
from jedi_toybox.score import Benchmark, draw_pair, to_picture

CPU = torch.device("cpu")
STEPS, QUARTER = 50, 0.25


@dataclass
class Way:
    """References as they are, or with their masks, and what came of it."""

    is_masked: bool
    pictures: list[torch.Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)


def count() -> None:
    """Print the table of --count; its last line is JSON."""
    with torch.device("meta"):
        stable = make_joint(UNet2DConditionModel(cross_attention_dim=768))
    bundled = load_pipeline().backbone
    meta = copy.deepcopy(bundled.network).to("meta")
    guidance, figures = plan_guidance("joint", 3.0), {}
    for name, backbone, side in (
        ("bundled, 128 px", UNetBackbone(meta), 16),
        ("SD 1.4, 512 px", UNetBackbone(stable), 64),
    ):
        plain_flops = 2 * STEPS * count_sampling(backbone, [(side, side)], []).alone
        for references, share in itertools.product((1, 3), (1.0, QUARTER)):
            made = count_sampling(backbone, [(side, side)], [(side, side)] * references, share=share)
            costs = [
                made.of(guidance, STEPS, "joint"),
                made.of(guidance, STEPS, "cached"),
                made.of(guidance, STEPS, "cached", is_kept=True),
            ]
            figures[f"{name}, R = {references}, {share:.0%}"] = [
                round(each / plain_flops, 3) for each in costs
            ]
    print(plain(("", "joint", "cached, first", "further"), [[k, *map(str, v)] for k, v in figures.items()]))
    print(json.dumps(figures))


def main() -> None:
    options = parse()
    if options.count:
        count()
        return
    visibility.KEPT_SHARE = options.share
    pipe = models.load_model(options.model, CPU, torch.float32)
    pipe.set_progress_bar_config(disable=True)
    size = options.size or models.own_size(pipe)
    pairs = [draw_pair(number, options.references, options.seed) for number in range(options.pairs)]
    benchmark = Benchmark.render(pairs, load_encoders(BUNDLED, CPU), size)
    specs = [spec for pair in pairs for spec in pair.references]
    masks = render_many(specs, size, what="masks").masks.unflatten(0, (len(pairs), -1))
    ways = {"whole references": Way(False), "masked references": Way(True)}
    for number, pair in enumerate(pairs):
        for way in ways.values():
            references = [
                Reference(
                    to_picture(picture),
                    pair.truth.subject.phrase,
                    mask=mask.numpy() if way.is_masked else None,
                    strength=options.strength if way.is_masked else 1.0,
                )
                for picture, mask in zip(benchmark.references[number], masks[number], strict=True)
            ]
            run(pipe, way, references, pair.prompt, options.seed + number, options.steps, size)
    report(
        benchmark,
        ways,
        f"{options.model}, {len(pairs)} pairs, {options.references} reference(s), {options.steps} steps",
    )


def run(
    pipe: JeDiPipeline, way: Way, references: list[Reference], prompt: str, seed: int, steps: int, size: int
) -> None:
    """Make one picture, and note it, its seconds, and the bytes of what was kept of the references."""
    start = time.perf_counter()
    encoded = pipe.encode_references(references, height=size, width=size, masking="tokens")
    made = pipe(
        prompt,
        encoded,
        num_inference_steps=steps,
        height=size,
        width=size,
        generator=seeded_generator(seed),
    )
    way.seconds.append(time.perf_counter() - start)
    (picture,) = made.images
    way.pictures.append(torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1))
    way.kept.append(encoded.nbytes)


def report(benchmark: Benchmark, ways: dict[str, Way], about: str) -> None:
    made = {name: torch.stack(way.pictures) for name, way in ways.items()}
    whole, masked = ways.values()
    first, second = made.values()
    gain = benchmark.identity_gain(second, first)
    kept = statistics.mean(b / a for a, b in zip(whole.kept, masked.kept, strict=True))
    ratio = statistics.median(b / a for a, b in zip(whole.seconds, masked.seconds, strict=True))
    rows = []
    for name, way in ways.items():
        identity, prompt, copy, _ = benchmark.score(made[name])
        more = str(gain) if way.is_masked else "-"
        seconds = f"{statistics.median(way.seconds):.2f}"
        rows.append([name, str(identity), more, str(prompt), str(copy), seconds])
    print(about)
    print(plain(("", "identity", "more", "prompt", "copy", "seconds"), rows))
    figures = {
        "identity_gain": round(gain.mean, 4),
        "kept": round(kept, 4),
        "seconds_over_whole": round(ratio, 4),
    }
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="toybox", help="toybox (bundled), a folder, or a Hub id")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--references", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--strength", type=float, default=1.0, help="of masked references")
    parser.add_argument("--size", type=int, help="side in pixels; the model's own if not given")
    parser.add_argument("--share", type=float, default=visibility.KEPT_SHARE, help="see KEPT_SHARE")
    parser.add_argument("--count", action="store_true", help="count operations; run nothing")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
