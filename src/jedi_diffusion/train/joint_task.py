"""Joint training at scale as a task: the sets of a mixture, laid out by `plan`, and a pipeline's UNet."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from jedi_diffusion.data.mixture import Mixture
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.options import Coupling
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.randomness import keyed_number, seeded
from jedi_diffusion.train.batches import AnyExample, Encoder, MicroBatch, read_steps
from jedi_diffusion.train.estimate import count_work
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.network import JointStep, prepare_modules
from jedi_diffusion.train.plan import StepPlan, micro_batches, plan_step
from jedi_diffusion.train.sharding import shard, whole_network
from jedi_diffusion.train.stage import plain_attention
from jedi_diffusion.train.tally import Tally, peak
from jedi_diffusion.trainer.loop import Part, Row, Task
from jedi_diffusion.trainer.processes import Accelerated
from jedi_diffusion.trainer.settings import Every, Schedule, Settings


class MixtureTask(Task):
    """The joint loss (eq. 2) on a mixture; text encoders and autoencoder stay as they are.

    Every process reads its own sets of a step; what all of them train on depends on recipe, data and step.
    """

    def __init__(
        self, recipe: JointRecipe, pipeline: JeDiPipeline, mixture: Mixture, processes: Accelerated
    ) -> None:
        self.recipe, self.pipeline, self.mixture, self.processes = recipe, pipeline, mixture, processes
        training = recipe.training
        clean = pipeline.backbone.clean_references
        self.reference_weight = 0.0 if clean else training.reference_weight
        loss = JointLoss.from_scheduler(
            pipeline.scheduler, reference_weight=self.reference_weight, min_snr=training.min_snr
        )
        self.encode = Encoder(pipeline, loss)
        self.sharded = training.sharded and processes.count > 1
        if self.sharded and not pipeline.backbone.one_pass:
            raise UsageError(
                f"training.sharded does not go with a {type(pipeline.network).__name__}: the processes would "
                "run it a different number of times. Train adapters (lora), or leave sharded out."
            )
        prepare_modules(recipe, pipeline, processes.device, self.sharded, mixture.encoded)
        if self.sharded:
            shard(pipeline.network, processes.accelerator, getattr(torch, training.precision))
        self.network: nn.Module = JointStep(pipeline.backbone, loss, in_step=self.sharded)
        self.work = count_work(recipe, pipeline.network, pipeline.vae)
        names = [each.collection.source for each in mixture.sources]
        self.tally = Tally(names, processes, peak(processes.device, training.precision))
        self._reader: Iterator[Sequence[AnyExample]] = iter(())
        self._next: int | None = None
        self._kept: list[tuple[MicroBatch, Tensor]] = []

    @contextmanager
    def surroundings(self, step: int) -> Iterator[None]:
        rank = self.processes.accelerator.process_index
        seed = keyed_number(self.recipe.seed, "dropout", step, rank) >> 1
        attention = plain_attention() if self.recipe.training.attention == "plain" else nullcontext()
        with attention, seeded(seed, self.processes.device):
            yield

    def parts(self, step: int) -> list[Part]:
        return self.parts_of(step, self._read(step))

    def parts_of(self, step: int, examples: Sequence[AnyExample]) -> list[Part]:
        """Return the losses of a step's micro-batches, given this process's sets of it."""
        training, processes = self.recipe.training, self.processes
        plan = plan_step(self.recipe, self.mixture, step)
        coupling: Coupling = "cached" if plan.cached else "joint"
        mine = plan.part(processes.accelerator.process_index, processes.count)
        # Wrappers average gradients over processes; eq. 2 divides by the weight of the whole step.
        scale = processes.count / plan.weight(self.reference_weight)
        encoded = self.mixture.encoded_sources
        self.tally.count(
            sum(
                self.work.needed(each.is_reference, plan.cached, encoded[each.source], each.silent_references)
                for each in plan.sets
            )
        )

        def part(group: tuple[int, ...]) -> Part:
            def loss(network: nn.Module) -> Tensor:
                micro = self.encode([mine[n] for n in group], [examples[n] for n in group], coupling)
                with processes.accelerator.autocast():
                    losses: Tensor = network(micro)
                self._kept.append((micro, losses.detach()))
                return scale * losses.sum()

            return loss

        groups = micro_batches(mine, training.micro_batch, self._least_groups(plan))
        return [part(group) for group in groups]

    def end_step(self, sound: bool) -> None:
        for micro, losses in self._kept:
            self.tally.add(micro, losses, sound)
        self._kept = []

    def figures(self, seconds: float) -> Row:
        return {**self.tally.close(seconds), "unusable": len(self.mixture.quarantine)}

    def gather(self) -> None:
        """Give the pipeline a whole network again, on the main process, where it is sharded."""
        pipeline = self.pipeline
        network = whole_network(pipeline.network, self.processes.main) if self.sharded else None
        if network is not None:
            pipeline.register_modules(**{pipeline.network_name: network})

    def _read(self, step: int) -> Sequence[AnyExample]:
        """Return the process's sets of a step; those of the steps after it are read meanwhile."""
        started, recipe, training = time.monotonic(), self.recipe, self.recipe.training
        if step != self._next:
            layout = (self.processes.accelerator.process_index, self.processes.count)
            self._reader = iter(
                read_steps(self.mixture, step, training.steps, training.batch, *layout, recipe.data.workers)
            )
        examples = next(self._reader)
        self._next = step + 1
        if self._next == training.steps:
            self._reader = iter(())  # ends the reading processes
        self.tally.count_waiting(time.monotonic() - started)
        return examples

    def _least_groups(self, plan: StepPlan) -> int:
        """Return how many micro-batches this process makes at least: sharded, all have to make as many."""
        if not self.sharded:
            return 1
        ranks, pictures = self.processes.count, self.recipe.training.micro_batch
        return max(len(micro_batches(plan.part(rank, ranks), pictures)) for rank in range(ranks))


def joint_settings(recipe: JointRecipe, data: int) -> Settings:
    """Return how a recipe is trained; `data` is the mixture's fingerprint."""
    training, records = recipe.training, recipe.records
    return Settings(
        name=recipe.name,
        schedule=Schedule(training.learning_rate, training.warmup, training.schedule),
        steps=training.steps,
        weight_decay=training.weight_decay,
        optimizer=training.optimizer,
        clip=training.clip,
        ema=training.ema,
        rate_key="training.learning_rate",
        data=data,
        save=Every(steps=records.save_every),
        log=Every(steps=records.log_every),
        show=Every(steps=records.sample_every),
        keep_last=records.keep_last,
        keep_every=records.keep_every,
    )
