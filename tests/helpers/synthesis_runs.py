"""A small run of the synthesis in a folder, with the tests' models."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.outputs import OutputFolder
from jedi_diffusion.synthesis.recipe import PARTS, SynthesisRecipe, plan_shards
from jedi_diffusion.synthesis.work import do_all
from tests.helpers.synthesis_models import DISCS, Generator, make_models

ITEMS = (ObjectName("disc", "shape"), ObjectName("ring", "shape"), ObjectName("dot", "point"))


class Telling(Generator):
    """Says what it draws: three whole red discs, a blue one, one that is cut and one too small to see."""

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int]
    ) -> list[Image.Image]:
        pictures = super().generate(prompts, seeds, size)
        for picture in pictures:
            panels = [
                {
                    "subject": "blue" if color[2] > 100 else "red",
                    "box": [max(0, min(size[0], round(edge * size[0]))) for edge in edges],
                    "whole": edges[2] <= 1,
                }
                for x, y, radius, color in DISCS
                for edges in ((x - radius, y - radius, x + radius, y + radius),)
            ]
            picture.info["truth"] = {"panels": panels}
        return pictures


def recipe(**changes: object) -> SynthesisRecipe:
    raw = {
        "name": "a <test>",
        "seed": 3,
        "objects": [item.name for item in ITEMS],
        "stages": {"collages": 2, "collage_size": 128, "scene_size": 64},
        "models": {part: {"kind": "test"} for part in PARTS},
        "run": {"objects_per_shard": 2, "kept_collages": 3, "pictures": "png"},
    }
    return SynthesisRecipe.model_validate({**raw, **changes})


def write_run(folder: Path, shards: int = 2, truth: bool = True, **changes: object) -> OutputFolder:
    """A run of two shards, of which the first `shards` are made."""
    given = recipe(**changes)
    output = OutputFolder(folder)
    output.prepare(given, ITEMS)
    models = make_models(**({"generator": Telling()} if truth else {}))
    for plan in plan_shards(given, ITEMS)[:shards]:
        work = do_all(plan.seed, plan.items, models, given.stages, looks=given.run.kept_collages)
        output.write_shard(plan, work, given.run)
    if shards == 2:
        output.write_manifest()
    return output
