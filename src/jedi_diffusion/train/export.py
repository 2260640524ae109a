"""A model to try, or adapters, out of a checkpoint of a run that has not reached its end."""

from pathlib import Path

import torch
from torch import nn

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.joint_run import open_pipeline, result_name, save_result
from jedi_diffusion.train.network import checkpoint_prefix, prepare_modules
from jedi_diffusion.train.runner import TrainingRun
from jedi_diffusion.trainer.state import checkpoints, read_state, step_of


def export_joint(recipe: JointRecipe, folder: Path, step: int | None, base: str | None = None) -> Path:
    """Write what a joint run's checkpoint holds as its end would write it, beside the run's own result.

    step: None for the newest checkpoint; base: where the recipe's base lies, if its name does not say so. No
    data is read. Raises UsageError where there is no such checkpoint, ModelError.
    """
    chosen = _checkpoint(folder / "state", step)
    pipeline = open_pipeline(recipe, base)
    prepare_modules(recipe, pipeline, "cpu")
    spent = _load_average(chosen, pipeline.network, checkpoint_prefix(pipeline))
    taken = step_of(chosen)
    return save_result(recipe, pipeline, folder / f"{result_name(recipe)}-{taken:08d}", taken, spent)


def export_stages(run: TrainingRun, step: int | None) -> Path:
    """Write the model of a run in stages: finished stages, and the one that is under way at its checkpoint.

    step: of that stage, None for its newest. Raises UsageError where no stage is under way, or the first,
    whose autoencoder alone is no model; ModelError.
    """
    for stage in run.recipe.stages:
        state = run.folder / stage.name / "state"
        if run.load_finished(stage) or not checkpoints(state):
            continue
        if stage.kind == "autoencoder":
            raise UsageError(f"Stage {stage.name} is not finished: there is no model to try before it is.")
        chosen = _checkpoint(state, step)
        _load_average(chosen, run.modules_of(stage), "")
        return run.save_model(f"model-{stage.name}-{step_of(chosen):08d}")
    raise UsageError(f"{run.folder} holds no checkpoint of a stage that is under way.")


def _checkpoint(state: Path, step: int | None) -> Path:
    found = checkpoints(state)
    if not found:
        raise UsageError(f"{state} holds no checkpoint.")
    if step is None:
        return found[-1]
    for each in found:
        if step_of(each) == step:
            return each
    steps = ", ".join(str(step_of(each)) for each in found)
    raise UsageError(f"{state} holds no checkpoint of step {step}; it has those of {steps}.")


@torch.no_grad()
def _load_average(checkpoint: Path, module: nn.Module, prefix: str) -> float:
    """Put a checkpoint's averaged weights into a module; returns the seconds that training had taken."""
    average, facts = read_state(checkpoint, "cpu", "average/")
    parameters = {f"average/{prefix}{name}": each for name, each in module.named_parameters()}
    trained = {name: each for name, each in parameters.items() if each.requires_grad}
    shapes, wanted = ({name: each.shape for name, each in some.items()} for some in (average, trained))
    if shapes != wanted:
        raise ModelError(f"{checkpoint} is of another model than the recipe's.")
    for name, each in trained.items():
        each.copy_(average[name])
    spent: float = facts["spent"]
    return spent
