"""The training loop. A task gives the loss of a step; the trainer does all else: optimizer, learning rate,
EMA of the weights, clipping, checkpoints, log, progress, time budget.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from jedi_diffusion.errors import ModelError, RecipeError
from jedi_diffusion.files import write_file
from jedi_diffusion.trainer.interrupts import stop_requests
from jedi_diffusion.trainer.optimizers import make_optimizer, restored_state, stored_state
from jedi_diffusion.trainer.processes import Processes
from jedi_diffusion.trainer.settings import Every, Settings
from jedi_diffusion.trainer.sharded import local, split_like, whole
from jedi_diffusion.trainer.skipping import Skipping, finite_or_none
from jedi_diffusion.trainer.state import load_state, save_state

BAR = "{desc}: {percentage:5.1f}%|{bar}| {elapsed}<{remaining}{postfix}"
STATE, LOG = "state", "log.jsonl"

Part = Callable[[nn.Module], Tensor]
Row = dict[str, object]


class Task(ABC):
    """Modules and data, and the loss of a step as a function of the step alone.

    network: what is trained, its parameters that ask for gradients. step_shares: for some of them, by name,
    the factor on how far a step moves their values, broadcast to them.
    """

    network: nn.Module
    step_shares: Mapping[str, Tensor] = {}

    def parameters(self) -> dict[str, Tensor]:
        """Return what is trained, by its name in checkpoints."""
        return {name: each for name, each in self.network.named_parameters() if each.requires_grad}

    def surroundings(self, step: int) -> AbstractContextManager[object]:
        """Return the context that the step's parts are computed in, with gradients: random seeds, kernels."""
        return nullcontext()

    @abstractmethod
    def parts(self, step: int) -> Sequence[Part]:
        """Return this process's share of the step's loss as functions whose values add up, called once each.

        They are given the network, or its wrapper that averages gradients over the processes: where there are
        several, they have to run that one.
        """

    def end_step(self, sound: bool) -> None:  # noqa: B027 (most tasks count nothing)
        """Take note of a step's end; not `sound`: its gradient was not finite, so nothing was learned."""

    def figures(self, seconds: float) -> Row:
        """Return more for a row of the log, since the last one; `seconds` of the whole run have passed."""
        return {}


class Trainer:
    """Trains a task to its end, or goes on where the checkpoints in `folder` say.

    Without a time budget the weights after a step are a function of task and step: a killed training that is
    started again ends in the same weights, bit for bit on a CPU with as many processes. With a budget the
    learning rate follows the time spent, which a restart carries on too. Without a folder nothing is written.
    Raises RecipeError for a checkpoint of other data, ModelError for one of other networks.
    """

    def __init__(
        self, task: Task, settings: Settings, processes: Processes, folder: Path | None = None
    ) -> None:
        self.task, self.settings, self.processes, self.folder = task, settings, processes, folder
        self.parameters = task.parameters()
        self.sharded = any(isinstance(each, DTensor) for each in self.parameters.values())
        kept = {} if settings.ema is None else self.parameters
        self.average = {name: each.detach().clone() for name, each in kept.items()}
        stored = task.network.state_dict().keys()
        self.buffers = {name: each for name, each in task.network.named_buffers() if name in stored}
        self.optimizer = make_optimizer(self.parameters.values(), settings)
        self.step, self.spent, self.skipping = 0, 0.0, Skipping(settings.patience)
        self._skipped = 0
        self._restore()
        self.network, self.optimizer = processes.share(task.network, self.optimizer, self.sharded)

    @property
    def progress(self) -> float:
        """How much is done, 0 to 1: of the time budget, or of the steps."""
        if self.settings.minutes is None:
            return min(1.0, self.step / self.settings.steps)
        return min(1.0, self.spent / (60 * self.settings.minutes))

    @property
    def steps(self) -> float:
        """The steps that all of it takes; with a time budget an estimate, which is infinite at first."""
        if self.settings.minutes is None:
            return self.settings.steps
        return self.step / self.progress if self.progress else float("inf")

    def train(self, show: Callable[[int], None] | None = None) -> float | None:
        """Run to the end; `show(step)` is called as often as the settings say, with averaged weights in
        place, on the main process alone, but on all of them if weights are sharded.

        Returns the last step's loss, None if it is not finite or all steps were made before. Raises
        KeyboardInterrupt, after a checkpoint, when Ctrl-C or SIGTERM asked any process to stop, JeDiError
        where too many gradients in a row are not finite.
        """
        settings, before, started = self.settings, self.spent, time.monotonic()
        last = dict.fromkeys(("save", "log", "show"), before)
        loss = torch.tensor(torch.nan)

        def due(name: str, every: Every) -> bool:
            found = every.due(self.step, self.spent - last[name])
            if found:
                last[name] = self.spent
            return found

        with ExitStack() as opened:
            log, asked = self._open_log(opened), self._take_requests(opened)
            hidden = not (settings.progress_bar and self.processes.main)
            bar = tqdm(total=1.0, initial=self.progress, desc=settings.name, bar_format=BAR, disable=hidden)
            opened.enter_context(bar)
            while self.progress < 1:
                loss, norm = self.advance()
                stop = self._agree(before + time.monotonic() - started, asked())
                finished = self.progress == 1
                bar.update(self.progress - bar.n)
                if self.skipping.too_many:
                    self.save()
                    raise self.skipping.error(self.step, settings.rate_key, self.folder)
                if due("log", settings.log) or finished:
                    row = self._row(loss, norm)
                    self._write(log, row)
                    bar.set_postfix_str(in_words(row))
                if due("save", settings.save) or finished or stop:
                    self.save()
                if due("show", settings.show) and show is not None:
                    self.with_average(show)
                if stop and not finished:
                    raise KeyboardInterrupt(
                        f"Stopped after step {self.step} of {settings.name}; the same command goes on, and "
                        "with --export last it writes what was learned so far, to try."
                    )
        if settings.show_last and show is not None:
            self.with_average(show)
        return finite_or_none(loss)

    def advance(self) -> tuple[Tensor, Tensor]:
        """Make one step; returns its loss on this process and the gradient's norm before clipping.

        Weights and average stay as they are where the norm is not finite.
        """
        processes, settings = self.processes, self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.schedule.rate(self.step, self.steps)
        total = torch.zeros((), device=processes.device)
        parts = self.task.parts(self.step)
        with self.task.surroundings(self.step):
            for number, part in enumerate(parts, 1):
                shared = number == len(parts)
                with nullcontext() if shared else processes.unshared(self.network):
                    loss = part(self.network)
                    processes.backward(loss)
                total += loss.detach()
        norm = whole(processes.clip(self.parameters.values(), settings.clip))
        sound = self.skipping.sound(norm, self.step + 1)
        if sound or processes.scaler is not None:  # a scaler skips by itself, and lowers its scale
            self._move()
        self.optimizer.zero_grad(set_to_none=True)
        if sound:
            self.update_average()
        self._skipped += not sound
        self.task.end_step(sound)
        self.step += 1
        return total, norm

    @torch.no_grad()
    def _move(self) -> None:
        """Let the optimizer step, and keep of each parameter's change the task's share."""
        shares = self.task.step_shares
        before = {name: self.parameters[name].clone() for name in shares}
        self.optimizer.step()
        for name, share in shares.items():
            self.parameters[name].copy_(torch.lerp(before[name], self.parameters[name], share))

    @torch.no_grad()  # else the graph would grow with every step
    def update_average(self) -> None:
        """Move the averaged weights towards the trained ones, as far as this step's decay says."""
        if self.average:
            # Ordered as the dict: both were built from the same names.
            average, trained = ([local(v) for v in d.values()] for d in (self.average, self.parameters))
            torch._foreach_lerp_(average, trained, 1 - self.settings.ema_decay(self.step))

    def _agree(self, seconds: float, asked: bool) -> bool:
        """Take the main process's clock for all; returns whether any of them was asked to stop."""
        if self.processes.count == 1:
            self.spent = seconds
            return asked
        told = torch.tensor([seconds if self.processes.main else 0.0, float(asked)], dtype=torch.float64)
        self.spent, stop = self.processes.sum(told.to(self.processes.device)).tolist()
        return bool(stop)

    def _take_requests(self, opened: ExitStack) -> Callable[[], bool]:
        """Return whether Ctrl-C or SIGTERM has come; they act as usual where there is nothing to save."""
        return (lambda: False) if self.folder is None else opened.enter_context(stop_requests())

    def _open_log(self, opened: ExitStack) -> IO[str] | None:
        if self.folder is None or not self.processes.main:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        forget_rows(self.folder / LOG, self.step)
        return opened.enter_context((self.folder / LOG).open("a"))

    def _row(self, loss: Tensor, norm: Tensor) -> Row:
        skipped, self._skipped = self._skipped, 0
        return {
            "step": self.step,
            "loss": finite_or_none(loss),
            "gradient_norm": finite_or_none(norm),
            "skipped": skipped,
            "seconds": round(self.spent, 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **self.task.figures(self.spent),
        }

    def _write(self, log: IO[str] | None, row: Row) -> None:
        """Write a row into the log, and its numbers to the trackers."""
        if log is not None:
            log.write(json.dumps(row) + "\n")
            log.flush()
        groups = {key: value if isinstance(value, dict) else {"": value} for key, value in row.items()}
        flat = {f"{key}/{name}".rstrip("/"): v for key, group in groups.items() for name, v in group.items()}
        self.processes.track({k: v for k, v in flat.items() if isinstance(v, int | float)}, self.step)

    def with_average(self, call: Callable[[int], None]) -> None:
        """Call with the averaged weights in place; the trained ones are put back."""
        if self.processes.main or self.sharded:
            kept = {name: each.detach().clone() for name, each in self.parameters.items()}
            self.load_average()
            try:
                call(self.step)
            finally:
                self._fill(kept)
        self.processes.wait()

    def load_average(self) -> None:
        """Put the averaged weights in place for good: what a finished training hands on."""
        self._fill(self.average)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)

    def save(self) -> None:
        """Write a checkpoint: weights, average, moments, buffers, step, time spent. Raises OutputError."""
        if self.folder is None:
            return
        processes, settings = self.processes, self.settings
        tensors = {}
        for name, value in self._state():
            together = whole(value.detach())  # by all processes, one tensor at a time
            if processes.main:
                tensors[name] = together.cpu() if self.sharded else together
        if processes.main:
            scaler = None if processes.scaler is None else processes.scaler.state_dict()
            facts = {"spent": self.spent, "data": settings.data, "scaler": scaler}
            save_state(
                self.folder / STATE, self.step, tensors, facts, settings.keep_last, settings.keep_every
            )
        processes.wait()

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.parameters.items():
            yield f"weights/{name}", parameter
            if name in self.average:
                yield f"average/{name}", self.average[name]
            for key, value in stored_state(self.optimizer, parameter).items():
                yield f"optimizer/{key}/{name}", value
        for name, buffer in self.buffers.items():
            yield f"buffers/{name}", buffer

    @torch.no_grad()
    def _restore(self) -> None:
        if self.folder is None:
            return
        found = load_state(self.folder / STATE, "cpu")  # its parts go to the device, where all may not fit
        if found is None:
            return
        tensors, facts = found
        if facts.get("data") != self.settings.data:
            raise RecipeError(
                f"{self.folder} was trained on other data than there is now: put the data back, or choose "
                "another folder for --out."
            )
        wanted = {f"weights/{name}": each.shape for name, each in self.parameters.items()}
        if wanted != {n: each.shape for n, each in tensors.items() if n.startswith("weights/")}:
            raise ModelError(
                f"The checkpoint in {self.folder / STATE} is of other networks than are trained now: choose "
                "another folder for --out, or put what they start from back."
            )
        for name, parameter in self.parameters.items():
            parameter.copy_(split_like(tensors[f"weights/{name}"], parameter))
            if name in self.average:
                self.average[name] = split_like(tensors[f"average/{name}"], parameter)
            if f"optimizer/step/{name}" in tensors:  # else it has had no gradient yet
                self.optimizer.state[parameter] = self._moments(name, parameter, tensors)
        for name, buffer in self.buffers.items():
            buffer.copy_(tensors[f"buffers/{name}"])
        if facts.get("scaler") is not None and self.processes.scaler is not None:
            self.processes.scaler.load_state_dict(facts["scaler"])
        self.step, self.spent = facts["step"], facts["spent"]

    def _moments(self, name: str, parameter: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return what the optimizer knew of a parameter at a checkpoint."""
        if self.settings.optimizer == "adamw8bit":
            ending = f"/{name}"
            stored = {
                key.removeprefix("optimizer/").removesuffix(ending): value
                for key, value in tensors.items()
                if key.startswith("optimizer/") and key.endswith(ending)
            }
            return restored_state(self.optimizer, stored, self.processes.device)
        step = tensors[f"optimizer/step/{name}"]
        moments = ("exp_avg", "exp_avg_sq")
        return {"step": step.to(self.processes.device) if self.settings.fused else step} | {
            key: split_like(tensors[f"optimizer/{key}/{name}"], parameter) for key in moments
        }


def forget_rows(log: Path, step: int) -> None:
    """Take rows of later steps than this out of a log: a kill undid those steps, and they will be made again.

    A row that a kill cut short goes too.
    """
    if not log.exists():
        return
    lines = log.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        write_file(log, b"".join(kept))


def in_words(row: Row) -> str:
    """Return a row of the log in a few words, for the progress bar."""
    loss, speed = row["loss"], row.get("tflops_per_device")
    words = [f"step={row['step']}", "loss=none" if loss is None else f"loss={loss:.4f}"]
    if row.get("mfu") is not None:
        words.append(f"MFU {row['mfu']:.0%}")
    elif speed is not None:
        words.append(f"{speed:.3g} TFLOP/s")
    if row.get("unusable"):
        words.append(f"unusable={row['unusable']}")
    return ", ".join(words)
