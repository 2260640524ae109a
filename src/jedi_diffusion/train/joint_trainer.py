"""Training a joint model on a mixture of sets: steps, moving average, log, checkpoints, on any number of
processes.

What a step trains on is laid out by `plan`; this file holds the loop and what it keeps.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from jedi_diffusion.backbones.unet import JointDenoiser
from jedi_diffusion.data.mixture import Mixture
from jedi_diffusion.data.permutation import keyed_number
from jedi_diffusion.errors import ModelError, RecipeError
from jedi_diffusion.joint.denoiser import Coupling
from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.randomness import seeded
from jedi_diffusion.train.batches import AnyExample, Encoder, read_steps
from jedi_diffusion.train.estimate import count_work
from jedi_diffusion.train.joint_recipe import JointRecipe, Optimization
from jedi_diffusion.train.network import JointStep, prepare_modules
from jedi_diffusion.train.peaks import peak
from jedi_diffusion.train.plan import StepPlan, micro_batches, plan_step
from jedi_diffusion.train.sharding import local, shard, split_like, whole, whole_unet
from jedi_diffusion.train.skipping import Skipping
from jedi_diffusion.train.state import load_state, save_state
from jedi_diffusion.train.tally import StepLog, Tally, summary

BAR = "{desc}: {percentage:5.1f}%|{bar}| {n}/{total} [{elapsed}<{remaining}{postfix}]"


def learning_rate(training: Optimization, step: int) -> float:
    """Linear warm-up, then constant, or a cosine down to zero at the last step."""
    warm = min(1.0, (step + 1) / max(1, training.warmup))
    if training.schedule == "constant":
        return training.learning_rate * warm
    progress = min(1.0, step / training.steps)
    return training.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * progress))


def ema_decay(training: Optimization, step: int) -> float:
    """The recipe's decay, smaller at first so that the start is soon forgotten."""
    return min(training.ema, (1 + step) / (10 + step))


class JointTrainer:
    """Trains the UNet of a pipeline on a mixture; text encoders and autoencoder stay as they are.

    The weights after a step are a function of recipe, data and step: a killed run that is started again in
    the same folder ends in the same weights, bit for bit on a CPU with as many processes. Raises RecipeError
    if the folder's checkpoint was trained on other data.
    """

    def __init__(
        self,
        recipe: JointRecipe,
        pipeline: JeDiPipeline,
        mixture: Mixture,
        folder: Path,
        accelerator: Accelerator,
    ) -> None:
        self.recipe, self.pipeline, self.mixture = recipe, pipeline, mixture
        self.folder, self.accelerator = folder, accelerator
        training = recipe.training
        loss = JointLoss.from_scheduler(
            pipeline.scheduler, reference_weight=training.reference_weight, min_snr=training.min_snr
        )
        self.encode = Encoder(pipeline, loss)
        self.sharded = training.sharded and accelerator.num_processes > 1
        prepare_modules(recipe, pipeline, accelerator.device, self.sharded, mixture.encoded)
        if self.sharded:
            shard(pipeline.unet, accelerator, getattr(torch, training.precision))
        self.network: nn.Module = JointStep(JointDenoiser(pipeline.unet), loss, in_step=self.sharded)
        self.parameters: dict[str, Tensor] = {
            name: value for name, value in self.network.named_parameters() if value.requires_grad
        }
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.optimizer: Any = torch.optim.AdamW(
            [*self.parameters.values()],
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True,
        )
        self.step, self.spent, self.skipping = 0, 0.0, Skipping()
        self._restore()
        if self.sharded:
            self.optimizer = accelerator.prepare(self.optimizer)
        else:
            self.network, self.optimizer = accelerator.prepare(self.network, self.optimizer)
        self.work = count_work(recipe, pipeline.unet.config, pipeline.vae)

    def train(self, stop: Callable[[], bool], every_sample: Callable[[int], None]) -> bool:
        """Run to the end, or until `stop()` answers True on any process; whether the end was reached.

        A checkpoint is written in both cases. `every_sample(step)` is called on the main process as often as
        the recipe says, with averaged weights in place.
        """
        recipe, accelerator = self.recipe, self.accelerator
        layout = (accelerator.process_index, accelerator.num_processes)
        training, records = recipe.training, recipe.records
        reader = read_steps(
            self.mixture, self.step, training.steps, training.batch, *layout, recipe.data.workers
        )
        names = [each.collection.source for each in self.mixture.sources]
        tally = Tally(names, accelerator, peak(accelerator.device, training.precision))
        started, before = time.monotonic(), self.spent
        bar = tqdm(
            total=training.steps,
            initial=self.step,
            desc=recipe.name,
            bar_format=BAR,
            disable=not accelerator.is_main_process,
        )
        with bar, StepLog(self.folder / "log.jsonl", accelerator) as log:
            for examples in tally.time_reading(reader):
                norm = self.advance(examples, tally)
                self.spent = before + time.monotonic() - started
                bar.update()
                if self.skipping.too_many:
                    self.save()
                    raise self.skipping.error(self.step, "training.learning_rate", self.folder / "state")
                if self.step % records.log_every == 0 or self.step == training.steps:
                    row = tally.close(self.step, self.spent, norm, learning_rate(training, self.step - 1))
                    log.write(row)
                    bar.set_postfix_str(summary(row))
                asked = self._asked(stop)
                if asked or self.step % records.save_every == 0 or self.step == training.steps:
                    self.save()
                if records.sample_every and self.step % records.sample_every == 0:
                    self.with_average(every_sample)
                if asked:
                    break
        return self.step == training.steps

    def advance(self, examples: Sequence[AnyExample], tally: Tally) -> Tensor:
        """One optimizer step on this process's sets; returns the gradient's norm before clipping.

        Weights and average stay as they are where that is not finite.
        """
        training, accelerator = self.recipe.training, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(training, self.step)
        plan = plan_step(self.recipe, self.mixture, self.step)
        coupling: Coupling = "cached" if plan.cached else "joint"
        mine = plan.part(accelerator.process_index, accelerator.num_processes)
        # Wrappers average gradients over processes; eq. 2 divides by the weight of the whole step.
        scale = accelerator.num_processes / plan.weight(training.reference_weight)
        groups = micro_batches(mine, training.micro_batch, self._least_groups(plan))
        kept = []
        with seeded(self._dropout_seed(), accelerator.device):
            for group in groups:
                micro = self.encode([mine[n] for n in group], [examples[n] for n in group], coupling)
                last = group is groups[-1]
                with nullcontext() if last else accelerator.no_sync(self.network):
                    with accelerator.autocast():
                        losses = self.network(micro)
                    accelerator.backward(scale * losses.sum())
                kept.append((micro, losses.detach()))
        norm = whole(accelerator.clip_grad_norm_([*self.parameters.values()], training.clip))
        sound = self.skipping.sound(norm, self.step + 1)
        if sound or accelerator.scaler is not None:  # a scaler skips by itself, and lowers its scale
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if sound:
            self.update_average()
        for micro, losses in kept:
            tally.add(micro, losses, sound)
        tally.count_skipped(not sound)
        encoded = self.mixture.encoded_sources
        tally.count(
            sum(self.work.needed(each.is_reference, plan.cached, encoded[each.source]) for each in plan.sets)
        )
        self.step += 1
        return norm

    def _dropout_seed(self) -> int:
        """Of what layers draw from torch's global state in this step, on this process."""
        return keyed_number(self.recipe.seed, "dropout", self.step, self.accelerator.process_index) >> 1

    def _least_groups(self, plan: StepPlan) -> int:
        """How many micro-batches this process makes at least: sharded, all have to make as many."""
        if not self.sharded:
            return 1
        ranks, pictures = self.accelerator.num_processes, self.recipe.training.micro_batch
        return max(len(micro_batches(plan.part(rank, ranks), pictures)) for rank in range(ranks))

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged weights towards the trained ones, as far as this step's decay says."""
        # Ordered as the dict: both were built from the same names.
        average, trained = ([local(v) for v in d.values()] for d in (self.average, self.parameters))
        torch._foreach_lerp_(average, trained, 1 - ema_decay(self.recipe.training, self.step))

    def _asked(self, stop: Callable[[], bool]) -> bool:
        """Whether any process was asked to stop: all of them leave after the same step."""
        if self.accelerator.num_processes == 1:
            return stop()
        flag = torch.tensor(float(stop()), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def with_average(self, call: Callable[[int], None]) -> None:
        """Call with the averaged weights in the UNet, which is put back as it was.

        On the main process alone, but on all of them if the UNet is sharded: it runs on all or on none.
        """
        if self.accelerator.is_main_process or self.sharded:
            kept = {name: value.detach().clone() for name, value in self.parameters.items()}
            self._copy(self.average)
            try:
                with self.accelerator.autocast() if self.sharded else nullcontext():
                    call(self.step)
            finally:
                self._copy(kept)
        self.accelerator.wait_for_everyone()

    def load_average(self) -> None:
        """Put the averaged weights into the UNet for good; the main process gets a whole one in any case."""
        self._copy(self.average)
        if self.sharded:
            unet = whole_unet(self.pipeline.unet, self.accelerator.is_main_process)
            if unet is not None:
                self.pipeline.register_modules(unet=unet)

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def save(self) -> None:
        """Write a checkpoint: weights, their average, the optimizer's moments, the step, the time spent."""
        accelerator, records = self.accelerator, self.recipe.records
        tensors = {}
        for name, value in self._state():
            together = whole(value.detach())  # by all processes, one tensor at a time
            if accelerator.is_main_process:
                tensors[name] = together.cpu() if self.sharded else together
        if accelerator.is_main_process:
            scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
            facts = {"spent": self.spent, "data": self.mixture.fingerprint, "scaler": scaler}
            folder = self.folder / "state"
            save_state(folder, self.step, tensors, facts, records.keep_last, records.keep_every)
        accelerator.wait_for_everyone()

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.parameters.items():
            yield f"weights/{name}", parameter
            yield f"average/{name}", self.average[name]
            for key, value in self.optimizer.state.get(parameter, {}).items():
                yield f"optimizer/{key}/{name}", value

    @torch.no_grad()
    def _restore(self) -> None:
        # From the file a piece at a time, where the whole may not fit the device.
        device = "cpu" if self.sharded else self.accelerator.device
        found = load_state(self.folder / "state", device)
        if found is None:
            return
        tensors, facts = found
        if facts["data"] != self.mixture.fingerprint:
            raise RecipeError(
                f"{self.folder} was trained on other data than the recipe's sources hold now: put the data "
                "back, or choose another folder for --out."
            )
        if {f"weights/{name}" for name in self.parameters} - tensors.keys():
            raise ModelError(
                f"The checkpoint in {self.folder / 'state'} is of other networks than {self.recipe.base} has "
                "now: put that base back, or choose another folder for --out."
            )
        for name, parameter in self.parameters.items():
            parameter.copy_(split_like(tensors[f"weights/{name}"], parameter))
            self.average[name] = split_like(tensors[f"average/{name}"], parameter)
            moments = {
                key: split_like(tensors[f"optimizer/{key}/{name}"], parameter)
                for key in ("exp_avg", "exp_avg_sq")
            }
            step = tensors[f"optimizer/step/{name}"].to(self.accelerator.device)
            self.optimizer.state[parameter] = {"step": step, **moments}
        if facts["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        self.step, self.spent = facts["step"], facts["spent"]
