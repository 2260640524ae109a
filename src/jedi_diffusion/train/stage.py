"""A stage of a recipe as the trainer takes it: its settings, seeds, precision and kernels."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from jedi_diffusion.devices import autocast
from jedi_diffusion.randomness import seeded
from jedi_diffusion.train.config import Recipe, Stage
from jedi_diffusion.train.tasks import StageLoss
from jedi_diffusion.trainer.loop import Part, Task, Trainer
from jedi_diffusion.trainer.processes import Processes
from jedi_diffusion.trainer.settings import Every, Schedule, Settings

LOG_EVERY = 20


class StageTask(Task):
    """A stage's loss, whose draws and dropout depend on the recipe's seed, the stage's name and the step."""

    def __init__(self, loss: StageLoss, stage: Stage, recipe: Recipe, device: str) -> None:
        self.network, self.step_shares = loss.modules, loss.step_shares
        self.stage_loss, self.stage, self.recipe, self.device = loss, stage, recipe, device

    @contextmanager
    def surroundings(self, step: int) -> Iterator[None]:
        attention = plain_attention() if self.stage.attention == "plain" else nullcontext()
        seed = step_seed(self.recipe.seed, f"{self.stage.name}/dropout", step)
        with attention, seeded(seed, self.device):
            yield

    def parts(self, step: int) -> list[Part]:
        seed = step_seed(self.recipe.seed, self.stage.name, step)

        def loss(network: nn.Module) -> Tensor:
            with autocast(self.recipe.precision, self.device):
                return self.stage_loss.loss(torch.Generator().manual_seed(seed))

        return [loss]


def stage_trainer(
    loss: StageLoss, stage: Stage, recipe: Recipe, folder: Path, device: str, minutes: float | None = None
) -> Trainer:
    """Return a stage's trainer, which keeps its log and checkpoints in the stage's subfolder of `folder`.

    minutes: the stage's time budget, None to run its steps.
    """
    settings = Settings(
        name=stage.name,
        schedule=Schedule(stage.learning_rate, stage.warmup, "cosine", floor=0.02),
        steps=stage.steps,
        minutes=minutes,
        weight_decay=stage.weight_decay,
        betas=(0.9, 0.99),
        clip=stage.clip,
        ema=stage.ema,
        rate_key=f"learning_rate of stage {stage.name}",
        save=Every(minutes=recipe.save_minutes),
        log=Every(steps=LOG_EVERY),
        show=Every(minutes=recipe.sample_minutes),
        show_last=True,
    )
    task = StageTask(loss, stage, recipe, device)
    return Trainer(task, settings, Processes(device), folder / stage.name)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention as two matrix products in the inputs' own precision, which torch else raises to float32: on a
    CPU with bfloat16 a quarter of the bundled model's step.
    """
    allowed = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # for CPUs too, whatever its name says
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(allowed)


def step_seed(seed: int, stage: str, step: int) -> int:
    """Return a 62-bit seed that depends on the run's seed, the stage's name and the step only."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 2
