"""Running a recipe: what is missing of its shards is made, by one engine or another, and then the manifest.

The engine here is `local`: this process, or several that each hold their own models and make whole shards.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from jedi_diffusion.errors import JeDiError, ModelError, UsageError
from jedi_diffusion.files import file_lock
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.outputs import MANIFEST, OutputFolder
from jedi_diffusion.synthesis.progress import Watch
from jedi_diffusion.synthesis.protocols import Models
from jedi_diffusion.synthesis.recipe import PARTS, Choices, ShardPlan, SynthesisRecipe, plan_shards
from jedi_diffusion.synthesis.records import Rejection
from jedi_diffusion.synthesis.work import StepDone, do_all

ModelFactory = Callable[[Choices, str, Collection[str]], Models]
"""Makes the models of some parts on a device (others may be None); a function of a module, since other
processes call it."""
TRIALS = 3
"""Times that a shard is begun before the death of the workers that made it ends the run."""


@dataclass(frozen=True)
class Job:
    """What every process of a run needs. Worker n computes on `devices[n % len(devices)]`."""

    recipe: SynthesisRecipe
    folder: Path
    make_models: ModelFactory
    workers: int = 1
    devices: tuple[str, ...] = ("cpu",)

    def models(self, worker: int = 0, parts: Collection[str] = PARTS) -> Models:
        """Return the models of some parts, loaded."""
        device = self.devices[worker % len(self.devices)]
        return self.make_models(self.recipe.models.plain(), device, parts)


Engine = Callable[[Job, Sequence[ShardPlan], Watch], None]
"""Makes these shards, and tells the watch."""


def synthesize_recipe(
    job: Job,
    items: tuple[ObjectName, ...],
    engine: Engine,
    stopping: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> Path:
    """Make every shard of the recipe that is not whole yet, then the manifest, whose path is given.

    Raises RecipeError where the folder is another recipe's, ModelError where models cannot be loaded or fail
    too often, OutputError where nothing can be written, KeyboardInterrupt where `stopping` says so. Whole
    shards stay then, and the same call goes on.
    """
    output = OutputFolder(job.folder)
    output.prepare(job.recipe, items)
    with sole_run(job.folder):
        plans = plan_shards(job.recipe, items)
        waiting = [plan for plan in plans if not output.is_whole(plan.number)]
        for plan in waiting:
            output.clear(plan.number)
        watch = Watch(
            len(plans),
            sum(len(plan.items) for plan in plans),
            output.markers(),
            job.recipe.run.failures,
            stopping,
            say,
        )
        if waiting:
            (job.folder / MANIFEST).unlink(missing_ok=True)
            engine(job, waiting, watch)
        return output.write_manifest()


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Refuses (UsageError) a folder that another run is writing to; a killed run does not hold it."""
    with file_lock(folder / ".lock", wait=False) as held:
        if not held:
            raise UsageError(f"Another run is writing to {folder}: wait for it, or stop it.")
        yield


def run_local(job: Job, plans: Sequence[ShardPlan], watch: Watch) -> None:
    """Make shard after shard in this process, or in `job.workers` others: the engine `local`."""
    if job.workers > 1:
        _run_in_processes(job, plans, watch)
        return
    models = job.models()
    for plan in plans:
        make_shard(job, plan, models, watch.step)
        watch.shard()


def make_shard(
    job: Job, plan: ShardPlan, models: Models, between: Callable[[StepDone, Sequence[Rejection]], None]
) -> None:
    """One shard from its objects to its marker."""
    run = job.recipe.run
    work = do_all(plan.seed, plan.items, models, job.recipe.stages, run.batch, run.kept_collages, between)
    OutputFolder(job.folder).write_shard(plan, work, run)


@dataclass
class _Worker:
    """A process, its end of a pipe, and the shard that it is at."""

    process: BaseProcess
    connection: Connection
    plan: ShardPlan


def _run_in_processes(job: Job, plans: Sequence[ShardPlan], watch: Watch) -> None:
    waiting, begun = deque(plans), Counter[int]()
    workers: list[_Worker] = []
    try:
        for number in range(min(job.workers, len(plans))):
            workers.append(_begin(job, number, waiting.popleft(), begun))
        while workers:
            ready = wait([worker.connection for worker in workers], timeout=0.5)
            watch.check()
            for worker in [each for each in workers if each.connection in ready]:
                if not _hear(worker, watch):
                    continue
                number = workers.index(worker)
                if worker.process.exitcode is not None:  # it died: its shard is begun again
                    workers[number] = _begin(job, number, worker.plan, begun)
                elif waiting:
                    worker.plan = waiting.popleft()
                    begun[worker.plan.number] += 1
                    worker.connection.send(worker.plan)
                else:
                    workers.remove(worker)
                    worker.connection.close()
                    worker.process.join()
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()


def _begin(job: Job, number: int, plan: ShardPlan, begun: Counter[int]) -> _Worker:
    """Return a new process that makes a shard, and then those that it is sent."""
    begun[plan.number] += 1
    if begun[plan.number] > TRIALS:
        raise ModelError(
            f"Workers died {TRIALS} times while they made shard {plan.number}: was there too little memory? "
            "Finished shards are kept; the same command goes on."
        )
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, job, number), daemon=True)
    process.start()
    theirs.close()  # else its end would not be noticed here
    ours.send(plan)
    return _Worker(process, ours, plan)


def _hear(worker: _Worker, watch: Watch) -> bool:
    """Take one message; whether the worker has no shard any more: it is finished, or the worker died."""
    try:
        kind, *rest = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        return True
    if kind == "failed":
        raise rest[0]
    if kind == "step":
        watch.step(*rest)
        return False
    watch.shard()
    return True


def _serve(connection: Connection, job: Job, number: int) -> None:
    """Work until the pipe ends, so also until the run is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the run itself ends its workers
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // job.workers)))
    try:
        models = job.models(number)
        while True:
            plan = connection.recv()
            make_shard(job, plan, models, lambda *news: connection.send(("step", *news)))
            connection.send(("shard",))
    except JeDiError as error:
        with suppress(OSError):
            connection.send(("failed", error))
    except (EOFError, OSError):
        return
