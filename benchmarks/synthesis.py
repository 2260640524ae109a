"""What the synthesis costs beside its models, how it scales to two workers, and whether its memory grows.

Prints a table and, as the last line, {"own_cost": the pipeline's own seconds over the seconds that the
paper's models would take on an A100 for the same calls, "two_workers_speedup": time of one worker over that
of two on the toybox's recipe, "memory_growth_mb": growth of the peak of memory from a tenth of the sets to
all of them}. Own cost and memory are measured with models that answer at once, at the paper's sizes of
pictures; the assumed seconds a call are those of `jedi_diffusion.synthesis.recipe.Seconds` and are printed.
Both runs of the speedup are done in turn, each worker with one thread, models' loading included.

    python benchmarks/synthesis.py [--sets 2000] [--objects 16] [--engine local|ray]
    [--only own_cost,two_workers_speedup,memory_growth_mb]
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read by torch at import, here and in the workers

import numpy as np
from PIL import Image, ImageDraw

from jedi_diffusion.cli.synthesize import pick_engine
from jedi_diffusion.recipes import CONFIGS
from jedi_diffusion.synthesis.adapters.templates import TemplatePromptWriter
from jedi_diffusion.synthesis.estimate import PROMPTS_A_REQUEST
from jedi_diffusion.synthesis.models_config import build
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.outputs import OutputFolder, total_counts
from jedi_diffusion.synthesis.protocols import Models
from jedi_diffusion.synthesis.recipe import Choices, SynthesisRecipe, load_recipe, objects_of
from jedi_diffusion.synthesis.runner import Job, run_local, synthesize_recipe
from jedi_diffusion.vision.detection import Box, Detection, Mask

PARTS_OF_A_SIDE = ((0.05, 0.05), (0.55, 0.05), (0.05, 0.55), (0.55, 0.55))
EXTENT = 0.35
"""Side of an instance, part of the collage's."""
FIGURES = ("own_cost", "two_workers_speedup", "memory_growth_mb")


def main() -> None:
    options = parse()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if {"own_cost", "memory_growth_mb"} & set(options.only):
            cost, growth = instant_run(place / "instant", options.sets, options.collage_size)
            figures |= {"own_cost": cost, "memory_growth_mb": growth}
        if "two_workers_speedup" in options.only:
            figures["two_workers_speedup"] = speedup(place, options.objects, options.engine)
    print(json.dumps({name: round(figures[name], 4) for name in FIGURES if name in figures}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=2000, help="sets made with instant models")
    parser.add_argument("--collage-size", type=int, default=1024, help="pixels; scenes have half of it")
    parser.add_argument(
        "--objects", type=int, default=16, help="objects of the toybox's recipe that are timed"
    )
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--only", type=lambda text: text.split(","), default=FIGURES)
    return parser.parse_args()


class Instant:
    """All models but the writer. Their answers are made beforehand, of one collage of four discs."""

    fingerprint = "instant"

    def __init__(self, side: int) -> None:
        self.collage = Image.new("RGB", (side, side), "white")
        draw = ImageDraw.Draw(self.collage)
        self.boxes, self.masks = [], []
        for left, top in PARTS_OF_A_SIDE:
            box = [round(side * edge) for edge in (left, top, left + EXTENT, top + EXTENT)]
            draw.ellipse(box, fill="red")
            outline = Image.new("1", (side, side))
            ImageDraw.Draw(outline).ellipse(box, fill=1)
            self.boxes.append(Detection(Box(*map(float, box)), 0.9))
            self.masks.append(np.asarray(outline))

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> list:
        return [self.collage] * len(prompts)

    def detect(self, pictures: Sequence[Image.Image], names: Sequence[str]) -> list[list[Detection]]:
        return [self.boxes] * len(pictures)

    def segment(self, pictures: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]) -> list[list[Mask]]:
        return [self.masks] * len(pictures)

    def embed(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        return np.ones((len(pictures), 8), dtype=np.float32)

    def inpaint(self, pictures: Sequence[Image.Image], *rest: object) -> list[Image.Image]:
        return list(pictures)

    def stylize(self, pictures: Sequence[Image.Image], *rest: object) -> list[Image.Image]:
        return list(pictures)

    def caption(self, pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[str]:
        return ["a red disc"] * len(pictures)


def instant_models(choices: Choices, device: str, parts: Collection[str]) -> Models:
    side = int(choices["generator"]["side"])
    instant = Instant(side)
    return Models(TemplatePromptWriter(), *[instant] * 7)


def instant_run(folder: Path, sets: int, side: int) -> tuple[float, float]:
    """(own seconds over the models' assumed seconds, growth of the memory's peak in MB) of a run."""
    paper = load_recipe(CONFIGS / "synthesize" / "paper.yaml")
    changes = {
        "objects": [f"thing {number}" for number in range(max(2, sets // 4))],
        "rounds": 1,
        "stages": {**paper.stages.model_dump(), "collages": 4, "collage_size": side, "scene_size": side // 2},
        "models": {**paper.models.plain(), "generator": {"kind": "instant", "side": side}},
    }
    recipe = SynthesisRecipe.model_validate({**paper.model_dump(mode="json"), **changes})
    items = tuple(ObjectName(name) for name in recipe.objects)
    peaks: list[float] = []
    start = time.perf_counter()
    job = Job(recipe, folder, instant_models)
    synthesize_recipe(job, items, run_local, lambda: peaks.append(peak()) is not None, say=print)
    seconds = time.perf_counter() - start
    counts = total_counts(OutputFolder(folder).markers())
    requests = len(items) * -(-recipe.stages.collages // PROMPTS_A_REQUEST) + counts["group"].made
    styled = counts["style"].made * recipe.stages.style_probability
    calls = {
        "writer": requests,
        "generator": counts["collage"].made,
        "detector": counts["collage"].made,
        "segmenter": counts["collage"].made,
        "embedder": counts["group"].received,
        "inpainter": counts["scene"].made,
        "stylizer": styled,
        "captioner": counts["caption"].received,
    }
    assumed = recipe.estimate.seconds
    print(f"{'model':<12}{'calls':>10}{'s a call':>10}{'s':>12}   assumed, on one {recipe.estimate.device}")
    for part, count in calls.items():
        each = getattr(assumed, part)
        print(f"{part:<12}{count:>10.0f}{each:>10.3f}{count * each:>12.1f}")
    models = sum(count * getattr(assumed, part) for part, count in calls.items())
    growth = peaks[-1] - peaks[len(peaks) // 10]
    print(f"{counts['set'].made} sets: {seconds:.1f} s of the pipeline's own, {models:.1f} s of the models'")
    print(f"peak of memory: {peaks[len(peaks) // 10]:.0f} MB at a tenth, {peaks[-1]:.0f} MB at the end")
    return seconds / models, growth


def peak() -> float:
    """Most memory that this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def speedup(folder: Path, objects: int, engine: str) -> float:
    """Return time of one worker over that of two."""
    path = CONFIGS / "synthesize" / "toybox.yaml"
    recipe = load_recipe(path, ("run.objects_per_shard=1",))
    items = objects_of(recipe, path)[:objects]
    seconds = []
    for workers in (1, 2):
        job = Job(recipe, folder / f"{workers} workers", build, workers)
        start = time.perf_counter()
        synthesize_recipe(job, items, pick_engine(engine), say=lambda text: None)
        seconds.append(time.perf_counter() - start)
        print(f"toybox, {len(items)} objects, engine {engine}, {workers} worker(s): {seconds[-1]:.1f} s")
    manifests = [(folder / f"{workers} workers" / "manifest.jsonl").read_bytes() for workers in (1, 2)]
    assert manifests[0] == manifests[1], "the number of workers changed the result"
    return seconds[0] / seconds[1]


if __name__ == "__main__":
    main()
