"""`jedi train`: trains a recipe into a folder, and goes on where an earlier start stopped."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.files import RunFolder, make_folder
from jedi_diffusion.models import quiet_libraries
from jedi_diffusion.recipes import find_recipe, has_key, is_among

if TYPE_CHECKING:
    from accelerate import Accelerator

    from jedi_diffusion.data.mixture import Mixture
    from jedi_diffusion.data.source import SetSource
    from jedi_diffusion.sets import ImageSet
    from jedi_diffusion.train.config import Recipe
    from jedi_diffusion.train.joint_recipe import JointRecipe
    from jedi_diffusion.train.runner import TrainingRun

SHOWN_SETS = 10
STAGED_ONLY = ("minutes", "init", "stage")


@dataclass(frozen=True)
class TrainOptions:
    """Train a recipe; the model is a diffusers folder, OUT/model (adapters: OUT/lora).

    A recipe with a `base` trains a pretrained model on sets of pictures; one with a `model` trains a small
    model from nothing, in stages. Started again with the same folder, it goes on from the last checkpoint.
    While it runs, the folder gets a log of losses (log.jsonl) and sample sheets. Several processes are
    started with torchrun --nproc-per-node N --no-python jedi train ...
    """

    recipe: tyro.conf.Positional[str]
    """A YAML file, or the name of a recipe that comes with the package (`jedi recipes`)."""
    out: str
    """Folder of the run: checkpoints, logs, samples, and the model."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change a key of the recipe: training.steps=10. May be given several times."""
    resume: Literal["latest", "never"] = "latest"
    """From the newest checkpoint in the folder, or refuse a folder that has one."""
    allow_change: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Go on with another value of this key of the recipe, such as training.steps. May be given several times;
    keys that decide no result need none."""
    processes: int | None = None
    """Stop if not as many processes run: some launchers start one and say nothing."""
    minutes: float | None = None
    """Budget of wall-clock time of a recipe in stages; the recipe's steps if not given."""
    init: str | None = None
    """For a recipe in stages: a model folder of it to start from, or "toybox" for the bundled model."""
    stage: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Train only this stage of a recipe in stages; may be given several times."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    export: str | None = None
    """STEP or "last": write the model, or adapters, of that checkpoint into the folder, and stop."""
    dry_run: bool = False
    """Print the resolved recipe, and what it will cost if it has a base, then stop."""


def run(arguments: list[str]) -> None:
    options = tyro.cli(TrainOptions, args=arguments, prog="jedi train")
    if options.minutes is not None and not 0 < options.minutes < 1e6:
        raise UsageError(f"--minutes is {options.minutes}, but must be more than 0.")
    import torch

    from jedi_diffusion.train.config import Recipe, checked, for_device, read_yaml

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda is asked for, but this machine has no CUDA device that torch can use."
        )
    path = find_recipe(options.recipe, "train")
    raw = for_device(read_yaml(path, options.set), device)
    if "base" in raw:
        _run_joint(raw, path, device, options)
    else:
        _run_staged(checked(Recipe, raw, path), device, options)


def _run_staged(recipe: Recipe, device: str, options: TrainOptions) -> None:
    resolved = json.dumps(recipe.model_dump(mode="json"), indent=2)
    print(resolved)
    if options.dry_run:
        _print_sizes(recipe, options)
    elif options.export is not None:
        from jedi_diffusion.train.export import export_stages

        _check_begun(options, recipe)
        print(f"Exported: {export_stages(_prepare(recipe, 'cpu', options), _exported_step(options.export))}")
    else:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError(
                "A recipe in stages trains in one process, but WORLD_SIZE is "
                f"{os.environ['WORLD_SIZE']}: start it by `jedi train`, without torchrun or accelerate."
            )
        run = _prepare(recipe, device, options)  # before the folder is made: it may refuse the recipe
        _open_folder(options, recipe)
        print(f"Trained: {run.train(options.stage)}")


def _run_joint(raw: dict[str, Any], path: Path, device: str, options: TrainOptions) -> None:
    from jedi_diffusion.train.config import checked
    from jedi_diffusion.train.joint_recipe import JointRecipe

    for name in STAGED_ONLY:
        if getattr(options, name):
            raise UsageError(f"--{name} is for recipes in stages; {path} trains a base model in one go.")
    recipe = checked(JointRecipe, raw, path)
    resolved = json.dumps(recipe.model_dump(mode="json"), indent=2)
    if options.dry_run:
        print(resolved)
        _print_estimate(recipe, options.processes or 1)
        return
    from jedi_toybox import folder_of

    if options.export is not None:
        from jedi_diffusion.train.export import export_joint

        quiet_libraries()
        folder = Path(options.out)
        _check_begun(options, recipe)
        result = export_joint(recipe, folder, _exported_step(options.export), folder_of(recipe.base))
        print(f"Exported: {result}")
        return
    from jedi_diffusion.train.joint_run import JointRun, start_processes

    quiet_libraries()
    folder = make_folder(options.out)
    accelerator = start_processes(recipe, folder, device, options.processes)
    if accelerator.is_main_process:
        print(resolved)
        _open_folder(options, recipe)
    accelerator.wait_for_everyone()
    mixture = _open_mixture(recipe, folder, accelerator)
    result = JointRun(recipe, mixture, folder, accelerator, folder_of(recipe.base)).train()
    if accelerator.is_main_process:
        lost, listed = len(mixture.quarantine), mixture.quarantine.path
        print(f"Trained: {result}" + (f" (unusable items of the data: {lost}, in {listed})" if lost else ""))


def _exported_step(given: str) -> int | None:
    """Return the step of --export; None for the newest. Raises UsageError."""
    if given != "last" and not given.isdecimal():
        raise UsageError(f"--export is {given!r}, but must be the number of a step, or last.")
    return None if given == "last" else int(given)


def _print_estimate(recipe: JointRecipe, processes: int) -> None:
    """Parameters, memory and time, where the base's configuration is at hand."""
    from jedi_diffusion.train.estimate import estimate
    from jedi_toybox import folder_of

    quiet_libraries()
    try:
        print(estimate(recipe, folder_of(recipe.base), processes).describe())
    except ModelError as error:
        print(f"No estimate of memory and time: {error}")


def _run_folder(options: TrainOptions, recipe: Recipe | JointRecipe) -> RunFolder:
    """Return the run's folder, for this recipe's values only: a key that a run lacks has its default
    there. Keys that decide no result may change, others where --allow-change names them.

    Raises UsageError where it names a key that recipes lack, or one that a run cannot go on without.
    """
    whole = recipe.model_dump(mode="json")
    for key in options.allow_change:
        if not has_key(whole, key):
            raise UsageError(f"--allow-change is {key!r}, but the recipe has no such key.")
        if is_among(key, recipe.fixed_keys) and not is_among(key, recipe.free_keys):
            raise UsageError(
                f"--allow-change is {key!r}, which a run cannot change: choose another folder for --out."
            )
    taken = (*recipe.free_keys, *options.allow_change)
    folder = Path(options.out)
    return RunFolder(
        folder,
        remedy="choose another folder for --out, or say --allow-change KEY where the run shall go on so",
        read=lambda found: type(recipe).model_validate(found).model_dump(mode="json"),
        may_change=lambda key: is_among(key, taken),
        place=lambda: _newest(folder),
    )


def _newest(folder: Path) -> dict[str, object]:
    """Return the newest checkpoint's step, and the stage that is under way in a run in stages."""
    from jedi_diffusion.trainer.state import checkpoints, step_of

    for state in (folder / "state", *folder.glob("*/state")):
        found = checkpoints(state)
        if found:
            stage = None if state.parent == folder else state.parent.name
            return {"stage": stage, "step": step_of(found[-1])}
    return {"stage": None, "step": 0}


def _check_begun(options: TrainOptions, recipe: Recipe | JointRecipe) -> None:
    """Raise UsageError where --export finds no run, RecipeError where it finds one of another recipe."""
    run = _run_folder(options, recipe)
    if not run.begun:
        raise UsageError(f"{options.out} holds no run: --export reads the checkpoints of the run in --out.")
    run.check(recipe.model_dump(mode="json"))


def _open_folder(options: TrainOptions, recipe: Recipe | JointRecipe) -> None:
    """Make the run's folder with the recipe in it; a run goes on with the recipe that it began with only."""
    run = _run_folder(options, recipe)
    if run.begun and options.resume == "never":
        raise UsageError(f"{options.out} holds a run already: choose another folder for --out.")
    run.open(recipe.model_dump(mode="json"))


def _open_mixture(recipe: JointRecipe, folder: Path, accelerator: Accelerator) -> Mixture:
    """Return the recipe's sources; what cannot be used is listed in the run's quarantine.jsonl."""
    from jedi_diffusion.data.quarantine import Quarantine
    from jedi_diffusion.data.recipe import open_mixture

    data = recipe.data
    with accelerator.main_process_first():
        quarantine = Quarantine(folder / "quarantine.jsonl", data.bad_items)
        return open_mixture(data.sources, data.resolution, recipe.seed, quarantine)


def _print_sizes(recipe: Recipe, options: TrainOptions) -> None:
    from jedi_diffusion.train.runner import Models

    quiet_libraries()
    print(Models(recipe, _source(recipe).words, "cpu", _init(options)).describe())


def _prepare(recipe: Recipe, device: str, options: TrainOptions) -> TrainingRun:
    from jedi_diffusion.train.runner import TrainingRun

    source, init = _source(recipe), _init(options)
    return TrainingRun(recipe, source, _held_out(recipe), Path(options.out), device, options.minutes, init)


def _source(recipe: Recipe) -> SetSource:
    from jedi_toybox.source import ToyboxSource

    toybox = ToyboxSource(recipe.seed, recipe.supersample, recipe.alike)
    if recipe.showroom is None:
        return toybox
    from jedi_showroom.mixed import MixedSource
    from jedi_showroom.source import ShowroomSource

    places = Path(recipe.showroom.packages), Path(recipe.showroom.folder)
    return MixedSource(
        ShowroomSource(*places, recipe.seed, recipe.alike), toybox, share=recipe.showroom.share
    )


def _init(options: TrainOptions) -> Path | None:
    """Return the folder of the model that training starts from."""
    from jedi_toybox import folder_of

    return None if options.init is None else Path(folder_of(options.init))


def _held_out(recipe: Recipe) -> list[ImageSet]:
    """Return sets of subjects that no training set shows, for the sheets that show progress."""
    from jedi_toybox import world

    if recipe.showroom is None:
        return [world.sample_set(seed, split="held_out", size=2) for seed in range(SHOWN_SETS)]
    from jedi_showroom.source import ShowroomSource

    section = recipe.showroom
    source = ShowroomSource(Path(section.packages), Path(section.folder), alike=1.0, split="held_out")
    resolution = recipe.stages[-1].resolution
    shown = source.image_sets(0, SHOWN_SETS // 2, 2, resolution)
    return [*shown, *(world.sample_set(seed, split="held_out", size=2) for seed in range(SHOWN_SETS // 2))]
