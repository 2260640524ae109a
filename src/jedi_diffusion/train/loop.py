"""The training loop of one stage: steps, moving average, log, checkpoints, time budget. It holds no
formula.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from jedi_diffusion.devices import autocast
from jedi_diffusion.randomness import seeded
from jedi_diffusion.train.config import Recipe, Stage
from jedi_diffusion.train.interrupts import stop_requests
from jedi_diffusion.train.skipping import Skipping, finite_or_none
from jedi_diffusion.train.state import load_state, save_state
from jedi_diffusion.train.tasks import Task

LOG_EVERY = 20
BAR = "{desc}: {percentage:5.1f}%|{bar}| {elapsed}<{remaining}{postfix}"


@dataclass(frozen=True)
class Run:
    """Where and how a stage runs. `minutes`: the stage's time budget, None to run the recipe's steps."""

    folder: Path
    recipe: Recipe
    device: str
    minutes: float | None = None


def learning_rate(stage: Stage, step: int, progress: float) -> float:
    """Linear warm-up, then a cosine from the peak down to a fiftieth of it at the end (progress 1)."""
    warm = min(1.0, (step + 1) / stage.warmup)
    return stage.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def ema_decay(stage: Stage, step: int) -> float:
    """The stage's decay, smaller at first so that the start is soon forgotten."""
    return min(stage.ema, (1 + step) / (10 + step))


class StageLoop:
    """Trains a task to the end of the stage.

    Without a time budget the state after a step is a function of recipe, device and step: a killed run that
    is started again ends in the same weights, bit for bit on a CPU. With a budget the learning rate follows
    the time spent, which a restart carries on too.
    """

    def __init__(self, task: Task, stage: Stage, run: Run) -> None:
        self.task, self.stage, self.run = task, stage, run
        self.folder = run.folder / stage.name / "state"
        self.parameters: dict[str, Tensor] = dict(task.modules.named_parameters())
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(
            [*self.parameters.values()],
            lr=stage.learning_rate,
            weight_decay=stage.weight_decay,
            betas=(0.9, 0.99),
            fused=True,
        )
        self.step, self.spent, self.skipping = 0, 0.0, Skipping()
        self._restore()

    @property
    def progress(self) -> float:
        """How much of the stage is done, 0 to 1: of its time budget, or of its steps."""
        if self.run.minutes is None:
            return min(1.0, self.step / self.stage.steps)
        return min(1.0, self.spent / (60 * self.run.minutes))

    def train(self, every_sample: Callable[[int], None]) -> None:
        """Run to the end; `every_sample(step)` is called now and then, and at the end, with averaged weights
        in place.

        Raises KeyboardInterrupt, after a checkpoint, when Ctrl-C or SIGTERM asked the run to stop.
        """
        saved = sampled = started = time.monotonic()
        before = self.spent
        bar = tqdm(total=1.0, initial=self.progress, desc=self.stage.name, bar_format=BAR)
        with stop_requests() as asked, (self.folder.parent / "log.jsonl").open("a") as log:
            while self.progress < 1:
                if asked():
                    bar.close()
                    self.save()
                    raise KeyboardInterrupt(
                        f"Stopped after step {self.step} of {self.stage.name}; the same command goes on, and "
                        "with --export last it writes what was learned so far, to try."
                    )
                loss, norm = self._advance()
                now = time.monotonic()
                self.spent = before + now - started
                bar.update(self.progress - bar.n)
                if self.skipping.too_many:
                    bar.close()
                    self.save()
                    key = f"learning_rate of stage {self.stage.name}"
                    raise self.skipping.error(self.step, key, self.folder)
                if self.step % LOG_EVERY == 0:
                    self._log(log, loss, norm)
                    bar.set_postfix(step=self.step, loss=f"{loss.item():.4f}")
                if now - saved > 60 * self.run.recipe.save_minutes:
                    self.save()
                    saved = time.monotonic()
                if now - sampled > 60 * self.run.recipe.sample_minutes:
                    self.with_average(every_sample)
                    sampled = time.monotonic()
        bar.close()
        self.save()
        self.with_average(every_sample)

    def _advance(self) -> tuple[Tensor, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.stage, self.step, self.progress)
        seed, name = self.run.recipe.seed, self.stage.name
        generator = torch.Generator().manual_seed(step_seed(seed, name, self.step))
        dropout = seeded(step_seed(seed, f"{name}/dropout", self.step), self.run.device)
        with self._attention(), dropout:
            with autocast(self.run.recipe.precision, self.run.device):
                loss = self.task.loss(generator)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.stage.clip)
        if self.skipping.sound(norm, self.step + 1):
            self._move()
            self._update_average()
        self.step += 1
        return loss.detach(), norm

    @torch.no_grad()  # else the graph would grow with every step
    def _update_average(self) -> None:
        # Ordered as the dict: both were built from the same names.
        average, trained = [*self.average.values()], [*self.parameters.values()]
        torch._foreach_lerp_(average, trained, 1 - ema_decay(self.stage, self.step))

    @torch.no_grad()
    def _move(self) -> None:
        """A step of the optimizer, of the task's share where it names one."""
        shares = self.task.step_shares
        before = {name: self.parameters[name].clone() for name in shares}
        self.optimizer.step()
        for name, share in shares.items():
            self.parameters[name].copy_(torch.lerp(before[name], self.parameters[name], share))

    def _attention(self) -> AbstractContextManager[None]:
        return plain_attention() if self.stage.attention == "plain" else nullcontext()

    def _log(self, log: IO[str], loss: Tensor, norm: Tensor) -> None:
        row = {
            "step": self.step,
            "loss": finite_or_none(loss),
            "gradient_norm": finite_or_none(norm),
            "seconds": round(self.spent, 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        log.write(json.dumps(row) + "\n")
        log.flush()

    def with_average(self, call: Callable[[int], None]) -> None:
        """Call with the averaged weights in the modules; the trained ones are put back."""
        kept = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.load_average()
        try:
            call(self.step)
        finally:
            self._copy_into_modules(kept)

    def load_average(self) -> None:
        """Put the averaged weights into the modules for good: what a finished stage hands on."""
        self._copy_into_modules(self.average)

    @torch.no_grad()
    def _copy_into_modules(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def save(self) -> None:
        """Write a checkpoint: weights, their average, the optimizer's moments, the step, the time spent."""
        tensors = {f"weights/{name}": value for name, value in self.parameters.items()}
        tensors |= {f"average/{name}": value for name, value in self.average.items()}
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer/{key}/{name}": value for key, value in moments.items()}
        save_state(self.folder, self.step, tensors, {"spent": self.spent})

    def _restore(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        found = load_state(self.folder, self.run.device)
        if found is None:
            return
        tensors, facts = found
        self._copy_into_modules({name: tensors[f"weights/{name}"] for name in self.parameters})
        self.average = {name: tensors[f"average/{name}"] for name in self.parameters}
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter] = {
                key: tensors[f"optimizer/{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
        self.step, self.spent = facts["step"], facts["spent"]


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
    """A 62-bit seed that depends on the run's seed, the stage's name and the step only."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 2
