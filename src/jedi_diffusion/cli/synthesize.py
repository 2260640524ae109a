"""`jedi synthesize`: makes a training set by a recipe, and goes on where an earlier start stopped."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jedi_diffusion.errors import UsageError
from jedi_diffusion.options import check_options
from jedi_diffusion.recipes import find_recipe

if TYPE_CHECKING:
    from jedi_diffusion.synthesis.runner import Engine

MAX_WORKERS = 1024


@dataclass(frozen=True)
class SynthesizeOptions:
    """Make sets of pictures that share a subject, out of pretrained single-image models (section 3.1).

    The folder gets shards for the source `sets` of `jedi train`, a record of everything that was made or
    rejected, and a manifest. Started again with the same folder, it makes what is missing.
    """

    recipe: tyro.conf.Positional[str]
    """A YAML file, or the name of a recipe that comes with the package (`jedi recipes`)."""
    out: str
    """Folder of the run."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change a key of the recipe: stages.collages=2. May be given several times."""
    workers: int = 1
    """Processes, each with its own models; the result is the same for any number."""
    engine: Literal["local", "ray"] = "local"
    """This machine's processes, or Ray, on one machine or a cluster."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models compute; with several CUDA devices, workers take turns."""
    dry_run: bool = False
    """Print the resolved recipe, the plan and what it will cost, then stop."""


def run(arguments: list[str]) -> None:
    """Make what is missing; print the counts of every stage to stderr. Raises JeDiError."""
    options = tyro.cli(SynthesizeOptions, args=arguments, prog="jedi synthesize")
    check_options(options, {"workers": (1, MAX_WORKERS)})
    from jedi_diffusion.synthesis.estimate import describe
    from jedi_diffusion.synthesis.models_config import build, check_models
    from jedi_diffusion.synthesis.recipe import load_recipe, objects_of, plan_shards

    path = find_recipe(options.recipe, "synthesize")
    recipe = load_recipe(path, options.set)
    items = objects_of(recipe, path)
    check_models(recipe.models.plain())
    if options.dry_run:
        print(json.dumps(recipe.model_dump(mode="json"), indent=2))
        print(describe(recipe, len(items), plan_shards(recipe, items)))
        return
    from jedi_diffusion.synthesis.runner import Job, synthesize_recipe
    from jedi_diffusion.trainer.interrupts import stop_requests

    engine = pick_engine(options.engine)
    job = Job(recipe, Path(options.out), build, options.workers, pick_devices(options.device))
    with stop_requests() as stopping:
        manifest = synthesize_recipe(job, items, engine, stopping, _say)
    print(f"Made: {manifest}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def pick_engine(name: str) -> Engine:
    """Return the engine of this name. Raises UsageError where its package is missing."""
    if name == "local":
        from jedi_diffusion.synthesis.runner import run_local

        return run_local
    from jedi_diffusion.synthesis.ray_engine import run_ray

    return run_ray


def pick_devices(name: str) -> tuple[str, ...]:
    """Return the devices that workers share. Raises UsageError where CUDA is asked for and not there."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cuda" and not count:
        raise UsageError(
            "--device cuda is asked for, but this machine has no CUDA device that torch can use."
        )
    return tuple(f"cuda:{number}" for number in range(count)) if count and name != "cpu" else ("cpu",)
