"""The engine `ray`: shards stream through pools of actors with Ray Data, on one machine or a cluster.

Each step has a pool, whose actors hold the step's models, so steps on processors and on graphics cards
overlap; or one pool's actors do every step (`recipe.RaySection`). A shard travels as a row. Ray holds rows
back where a later pool is slower, and gives what a killed actor had to another one. The last pool writes the
shards, so all machines must see the run's folder, and have this package. RAY_ADDRESS names a cluster.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jedi_diffusion.errors import JeDiError, ModelError, UsageError
from jedi_diffusion.synthesis.outputs import OutputFolder
from jedi_diffusion.synthesis.progress import Watch
from jedi_diffusion.synthesis.recipe import ShardPlan
from jedi_diffusion.synthesis.runner import Job
from jedi_diffusion.synthesis.work import STEP_NAMES, STEPS, StepDone, Work, do_step

POOLS = ("prompt", "collage", "instance", "group", "draft", "scene", "style", "caption set")
"""The steps of each pool where they are not fused. Sets need no model, and go with the captions."""
GPU_SHARE = 1 / len(POOLS)
STOP = ".stop"

Batch = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """Stands for a shard that is not made: why the run must end, None where it is ending already."""

    error: JeDiError | None = None


class _StoppedError(Exception):
    """The run is ending."""


class StepActor:
    """Does some steps on shards, with their models loaded once."""

    def __init__(self, job: Job, plans: Sequence[ShardPlan], names: Sequence[str]) -> None:
        self.job, self.plans = job, plans
        self.steps = [step for step in STEPS if step.name in names]
        self.fault: Fault | None = None
        try:
            self.models = job.models(parts={part for step in self.steps for part in step.models})
        except JeDiError as error:
            self.fault = Fault(error)

    def __call__(self, batch: Batch) -> Batch:
        """{"id": number of a plan, "work": what the pool before made of it, pickled} of one row."""
        place = int(batch["id"][0])
        before = pickle.loads(batch["work"][0]) if "work" in batch else None
        after = before if isinstance(before, Fault) else self.fault or self._work(self.plans[place], before)
        return {"id": batch["id"], "work": np.array([pickle.dumps(after)], dtype=object)}

    def _work(self, plan: ShardPlan, before: Work | None) -> Work | Fault:
        stages, run = self.job.recipe.stages, self.job.recipe.run
        work = before or Work.begin(plan.seed, plan.items)
        try:
            self._go_on()
            for step in self.steps:
                work = do_step(
                    step, work, self.models, stages, run.batch, run.kept_collages, lambda *_: self._go_on()
                )
            if self.steps[-1].name != STEP_NAMES[-1]:
                return work
            OutputFolder(self.job.folder).write_shard(plan, work, run)
        except JeDiError as error:
            return Fault(error)
        except _StoppedError:
            return Fault()
        return replace(work, records=(), collages=(), looks=(), rejected=tuple(work.failures))

    def _go_on(self) -> None:
        if (self.job.folder / STOP).exists():
            raise _StoppedError


def run_ray(job: Job, plans: Sequence[ShardPlan], watch: Watch) -> None:
    """Make the shards with Ray. Raises UsageError where it is not installed, and what the watch raises.

    Where the run must end, a file tells the actors to let go of what they are at: Ray does not survive that
    its data are dropped halfway.
    """
    check_names(job)
    flag = job.folder / STOP
    flag.unlink(missing_ok=True)
    end: BaseException | None = None
    with _ray(job), _flag_on_request(flag, watch):
        from ray.exceptions import RayError

        try:
            for row in _dataset(job, plans).iter_rows():
                if end is None:
                    end = _tell(pickle.loads(row["work"]), watch)
                if end is not None:
                    flag.touch()
        except RayError as error:
            raise ModelError(f"Ray gave up: {' '.join(str(error).split())[-500:]}") from error
    flag.unlink(missing_ok=True)
    if end is not None:
        raise end


def _tell(result: Work | Fault, watch: Watch) -> BaseException | None:
    """Tell the watch of a shard; the reason to end the run, if it is one."""
    try:
        if isinstance(result, Fault):
            if result.error is not None:
                return result.error
        else:
            for step, count in result.counts.items():
                failed = [each for each in result.rejected if each.stage in _stages_of(step)]
                watch.step(StepDone(step, count, len(result.items)), failed)
            watch.shard()
        watch.check()
    except (JeDiError, KeyboardInterrupt) as error:
        return error
    return None


@contextmanager
def _flag_on_request(flag: Path, watch: Watch) -> Iterator[None]:
    """Make the file as soon as the run is asked to stop; the main thread may be waiting for Ray then."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            if watch.stopping():
                flag.touch()
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def check_names(job: Job) -> None:
    """Raise UsageError for a step that the recipe's section `ray` names and that does not exist."""
    for name in (*job.recipe.ray.actors, *job.recipe.ray.gpus):
        if name not in STEP_NAMES:
            raise UsageError(f"ray: there is no step {name!r}; the steps are {', '.join(STEP_NAMES)}.")


def _stages_of(step: str) -> tuple[str, ...]:
    """Failures are counted once: those of stage 5 with its first half."""
    return {"draft": ("scene",), "scene": ()}.get(step, (step,))


def _dataset(job: Job, plans: Sequence[ShardPlan]) -> Any:
    """Return the shards' numbers, one a block, through the pools."""
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data import range as numbers

    DataContext.get_current().enable_progress_bars = False
    data = numbers(len(plans), override_num_blocks=len(plans))
    section, cuda = job.recipe.ray, job.devices[0] != "cpu"
    # Ray shows an actor its own cards only, so each calls its first one "cuda".
    own = replace(job, devices=("cuda",) if cuda else ("cpu",))
    for pool in _pools(job):
        names = pool.split()
        share = 1.0 if section.fuse else GPU_SHARE
        data = data.map_batches(
            StepActor,
            fn_constructor_args=(own, list(plans), names),
            batch_size=1,
            compute=ActorPoolStrategy(size=section.actors.get(names[0], job.workers)),
            num_cpus=1,
            num_gpus=section.gpus.get(names[0], share if cuda else 0.0) or None,
        )
    return data


def _pools(job: Job) -> tuple[str, ...]:
    return (" ".join(STEP_NAMES),) if job.recipe.ray.fuse else POOLS


@contextmanager
def _ray(job: Job) -> Iterator[None]:
    """Ray on this machine, or the cluster that RAY_ADDRESS names; one that runs already is left running."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(
            "--engine ray needs the package ray: pip install 'jedi-diffusion[synthesis-ray]'."
        ) from error
    if ray.is_initialized():
        yield
        return
    local: dict[str, Any] = {}
    if "RAY_ADDRESS" not in os.environ:
        actors = sum(job.recipe.ray.actors.get(pool.split()[0], job.workers) for pool in _pools(job))
        local = {"num_cpus": actors + 1, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
