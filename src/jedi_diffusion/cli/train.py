"""`jedi train`: trains a recipe into a folder, and goes on where an earlier start stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jedi_diffusion.errors import RecipeError, UsageError
from jedi_diffusion.files import make_folder, write_file

if TYPE_CHECKING:
    from jedi_diffusion.sets import ImageSet
    from jedi_diffusion.train.config import Recipe

SHOWN_SETS = 10


@dataclass(frozen=True)
class TrainOptions:
    """Train a recipe; the model is a diffusers folder, OUT/model.

    Started again with the same folder, it goes on from the last checkpoint. While it runs, every stage's
    folder holds its log of losses (log.jsonl) and sample sheets.
    """

    recipe: tyro.conf.Positional[str]
    """The recipe, a YAML file."""
    out: str
    """Folder of the run: checkpoints, logs, samples, and the model."""
    minutes: float | None = None
    """Budget of wall-clock time, split over the stages; the recipe's steps if not given."""
    init: str | None = None
    """A model folder of the same recipe to start from, or "toybox" for the bundled model."""
    stage: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Train only this stage; may be given several times. All stages if not given."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    dry_run: bool = False
    """Check and print the resolved recipe, then stop."""


def run(arguments: list[str]) -> None:
    options = tyro.cli(TrainOptions, args=arguments, prog="jedi train")
    if options.minutes is not None and not 0 < options.minutes < 1e6:
        raise UsageError(f"--minutes is {options.minutes}, but must be more than 0.")
    import torch

    from jedi_diffusion.train.config import load_recipe

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda is asked for, but this machine has no CUDA device that torch can use."
        )
    recipe = load_recipe(Path(options.recipe), device)
    resolved = json.dumps(recipe.model_dump(mode="json"), indent=2)
    print(resolved)
    if options.dry_run:
        return
    folder = make_folder(options.out)
    _keep_recipe(folder / "recipe.json", resolved)
    print(f"Trained: {_train(recipe, folder, device, options)}")


def _keep_recipe(path: Path, resolved: str) -> None:
    """Writes the recipe into a new run's folder; a run is continued with the recipe that it began with
    only.
    """
    if not path.exists():
        write_file(path, resolved.encode())
    elif path.read_text() != resolved:
        raise RecipeError(
            f"{path.parent} holds a run of another recipe ({path}): choose another folder for --out."
        )


def _train(recipe: Recipe, folder: Path, device: str, options: TrainOptions) -> Path:
    from jedi_diffusion.toybox.bundle import FOLDER
    from jedi_diffusion.toybox.source import ToyboxSource
    from jedi_diffusion.train.runner import TrainingRun

    source = ToyboxSource(recipe.seed, recipe.supersample)
    init = None
    if options.init is not None:
        init = FOLDER if options.init == "toybox" else Path(options.init)
    run = TrainingRun(recipe, source, _held_out(), folder, device, options.minutes, init)
    return run.train(options.stage)


def _held_out() -> list[ImageSet]:
    from jedi_diffusion.toybox import world

    return [world.sample_set(seed, split="held_out", size=2) for seed in range(SHOWN_SETS)]
