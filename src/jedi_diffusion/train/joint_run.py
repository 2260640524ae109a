"""A run of a joint recipe: from a base model and data to a diffusers folder."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator

from jedi_diffusion.backbones import family_of, text
from jedi_diffusion.data.digests import check_unchanged
from jedi_diffusion.data.mixture import Mixture
from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import replaced_folder
from jedi_diffusion.models import open_base
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.train.config import main_coupling
from jedi_diffusion.train.frozen import encoders_fingerprint, on_device
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.joint_task import MixtureTask, joint_settings
from jedi_diffusion.train.network import save_lora
from jedi_diffusion.train.samples import sample_sheet
from jedi_diffusion.trainer.loop import Trainer
from jedi_diffusion.trainer.processes import Accelerated
from jedi_diffusion.trainer.state import checkpoints

SHOWN = 4
"""Sets on a sheet of samples."""
SHARD = "5GB"


def start_processes(
    recipe: JointRecipe, folder: Path, device: str, processes: int | None = None
) -> Accelerator:
    """Return this process's place among those of the run; torchrun and `accelerate launch` start several.

    Raises UsageError if there are not as many as asked for (some launchers start a single one and say
    nothing), or if a tracker is not installed.
    """
    training = recipe.training
    for name in recipe.records.trackers:
        if find_spec(name) is None:
            raise UsageError(f"records.trackers names {name}, which is not installed: pip install {name}.")
    mixed = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[training.precision]
    accelerator = Accelerator(
        mixed_precision=mixed,
        cpu=device == "cpu",
        log_with=list(recipe.records.trackers) or None,
        project_dir=folder,
    )
    if processes is not None and accelerator.num_processes != processes:
        raise UsageError(
            f"{processes} processes are asked for, but {accelerator.num_processes} run: start them with "
            f"torchrun --nproc-per-node {processes} --no-python jedi train ..."
        )
    if training.batch % accelerator.num_processes:
        raise UsageError(
            f"training.batch, {training.batch} sets, cannot be split evenly over {accelerator.num_processes} "
            "processes."
        )
    return accelerator


def put_fresh_network(pipeline: JeDiPipeline, seed: int) -> None:
    """Exchange the network for one of the same architecture with random weights, drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = family_of(pipeline.network).fresh(pipeline.network)
    pipeline.register_modules(**{pipeline.network_name: fresh})


def open_pipeline(recipe: JointRecipe, base: str | None = None) -> JeDiPipeline:
    """Return what a recipe trains, as it is at first. base: where it lies, if its name does not say so."""
    pipeline = open_base(recipe.base if base is None else base)
    if recipe.fresh_unet:
        put_fresh_network(pipeline, recipe.seed)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def result_name(recipe: JointRecipe) -> str:
    """Return what the folder of a run's result is called."""
    return "model" if recipe.lora is None else "lora"


def save_result(
    recipe: JointRecipe, pipeline: JeDiPipeline, folder: Path, steps: int, seconds: float
) -> Path:
    """Write a model, or adapters, after so many steps, with recipe and model card; returns the folder."""
    pipeline.register_to_config(coupling=main_coupling(recipe.conditions.cached))
    with replaced_folder(folder) as partial:
        if recipe.lora is None:
            pipeline.save_pretrained(partial, safe_serialization=True, max_shard_size=SHARD)
        else:
            save_lora(pipeline, recipe, partial)
        (partial / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n")
        (partial / "README.md").write_text(model_card(recipe, steps, seconds))
    return folder


class JointRun:
    """Trains a recipe into `folder`; started again with the same folder it goes on where it was.

    `base` is where the recipe's base lies, if its name does not say so. The folder gets log.jsonl,
    samples-*.png, state/ with checkpoints, and at the end model/, or lora/ where the recipe trains adapters.
    Raises DataError if latents were encoded by others than the base's networks, RecipeError if the run began
    on other data than there is now.
    """

    def __init__(
        self,
        recipe: JointRecipe,
        mixture: Mixture,
        folder: Path,
        accelerator: Accelerator,
        base: str | None = None,
    ) -> None:
        self.recipe, self.mixture, self.folder, self.accelerator = recipe, mixture, folder, accelerator
        if accelerator.is_main_process:
            begun = bool(checkpoints(folder / "state"))
            check_unchanged(folder / "data.jsonl", [each.collection for each in mixture.sources], begun)
        self.pipeline = open_pipeline(recipe, base)
        mixture.check_encoded(lambda: encoders_fingerprint(self.pipeline, mixture.resolution), recipe.base)
        processes = Accelerated(accelerator)
        self.task = MixtureTask(recipe, self.pipeline, mixture, processes)
        self.trainer = Trainer(self.task, joint_settings(recipe, mixture.fingerprint), processes, folder)

    def train(self) -> Path:
        """Return the folder of the result.

        Raises KeyboardInterrupt, after a checkpoint, when Ctrl-C or SIGTERM asked the run to stop.
        """
        if self.recipe.records.trackers:
            self.accelerator.init_trackers(
                self.recipe.name,
                config={"recipe": self.recipe.model_dump_json()},
                init_kwargs={"wandb": {"dir": str(self.folder)}},  # else into the current folder
            )
        try:
            with first_only(text.logger):
                self.trainer.train(self._show)
        finally:
            if self.recipe.records.trackers:
                self.accelerator.end_training()
        self.trainer.load_average()
        self.task.gather()
        folder = self.folder / result_name(self.recipe)
        if self.accelerator.is_main_process:
            save_result(self.recipe, self.pipeline, folder, self.trainer.step, self.trainer.spent)
        self.accelerator.wait_for_everyone()
        return folder

    def _show(self, step: int) -> None:
        """Draw a sheet of samples: the mixture's first sets of two or more, each with one reference."""
        sets = self._shown()
        if sets:
            main = self.accelerator.is_main_process
            path = self.folder / f"samples-{step:07d}.png" if main else None
            autocast = self.accelerator.autocast() if self.task.sharded else nullcontext()
            with on_device(self.pipeline, self.accelerator.device), autocast:
                sample_sheet(self.pipeline, sets, self.recipe.data.resolution, path)

    def _shown(self) -> Sequence[ImageSet]:
        places = (place for place in range(100) if self.mixture.pick(place).size > 1)
        return [self.mixture[place] for place, _ in zip(places, range(SHOWN), strict=False)]


@contextmanager
def first_only(logger: logging.Logger) -> Iterator[None]:
    """Inside, of all that a logger says only the first passes: long captions would be named at every step."""
    seen = False

    def passes(record: logging.LogRecord) -> bool:
        nonlocal seen
        first, seen = not seen, True
        return first

    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def model_card(recipe: JointRecipe, steps: int, seconds: float) -> str:
    """Return what was trained on what, for whoever finds the weights."""
    training = recipe.training
    sources = "\n".join(
        f"- {getattr(each, 'place', each.kind)} ({each.kind}, probability {each.probability:g}, sets of "
        f"{', '.join(map(str, each.sizes))})"
        for each in recipe.data.sources
    )
    hours = seconds / 3600
    of_all = "" if steps == training.steps else f" of {training.steps}"
    kind = "Adapters for a joint-image" if recipe.lora else "A joint-image"
    fresh = " (but its UNet from random weights)" if recipe.fresh_unet else ""
    return f"""# {recipe.name}

{kind} diffusion model (JeDi) on the base `{recipe.base}`{fresh}, trained with jedi-diffusion:
{steps}{of_all} steps of {training.batch} sets at {recipe.data.resolution} pixels, {hours:.1f} hours.

Data:
{sources}

The resolved recipe is `recipe.json`. The base model's licence and that of the data apply. No scores have been
measured; a joint model can copy faces and protected designs from a single picture.
"""
