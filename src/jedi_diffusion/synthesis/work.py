"""Objects on their way through the stages: batches, counts, and records on which a model fails.

An engine decides where and when each step is done. What is done, and what is written down of it, is here, so
that every engine makes the same. A step is a stage of `stages`; stage 5 is two, since two models do it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from typing import Any

from jedi_diffusion.errors import ModelError
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.synthesis import stages
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.protocols import Models
from jedi_diffusion.synthesis.records import Collage, Key, Outcome, Reason, Rejection, Stage
from jedi_diffusion.synthesis.settings import StageSettings

Unit = Any
"""What a step takes whole: a record, or the records that it compares with each other."""


@dataclass
class StageCount:
    """Records that went into a step and came out of it, and how many were rejected by reason (lower case)."""

    received: int = 0
    made: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, other: StageCount) -> None:
        self.received += other.received
        self.made += other.made
        self.rejected.update(other.rejected)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"received": self.received, "made": self.made, "rejected": dict(sorted(self.rejected.items()))}


@dataclass(frozen=True)
class StepDone:
    """News for whoever shows progress: a step has dealt with some records."""

    step: str
    count: StageCount
    objects: float = 0.0
    """How much of the work it was, in objects that went through this step."""


@dataclass(frozen=True)
class WorkStep:
    """run(units, models, settings, seed) does it; lost(unit, settings) are the keys that a failure costs."""

    name: str
    stage: Stage
    run: Callable[[Sequence[Unit], Models, StageSettings, int], Outcome[Any]]
    lost: Callable[[Unit, StageSettings], list[Key]] = lambda unit, settings: [unit.key]
    together: Callable[[Any], Any] | None = None
    """Neighbouring records for which this gives the same are one unit; None: each is one."""
    models: tuple[str, ...] = ()


def _members(unit: Sequence[Any], settings: StageSettings) -> list[Key]:
    return [each.key for each in unit]


def _joined(units: Sequence[Sequence[Any]]) -> list[Any]:
    return list(chain.from_iterable(units))


STEPS = (
    WorkStep(
        "prompt",
        Stage.PROMPT,
        lambda units, models, settings, seed: stages.plan_collages(units, models.writer, settings, seed),
        lambda item, settings: [Key(item, number) for number in range(settings.collages)],
        models=("writer",),
    ),
    WorkStep(
        "collage",
        Stage.COLLAGE,
        lambda units, models, settings, seed: stages.make_collages(units, models.generator, settings, seed),
        models=("generator",),
    ),
    WorkStep(
        "instance",
        Stage.INSTANCE,
        lambda units, models, settings, seed: stages.find_instances(
            units, models.detector, models.segmenter, settings
        ),
        models=("detector", "segmenter"),
    ),
    WorkStep(
        "group",
        Stage.GROUP,
        lambda units, models, settings, seed: stages.group_instances(
            _joined(units), models.embedder, settings
        ),
        _members,
        lambda instance: (instance.key.item, instance.key.collage),
        models=("embedder",),
    ),
    WorkStep(
        "draft",
        Stage.SCENE,
        lambda units, models, settings, seed: stages.draft_scenes(units, models.writer, settings, seed),
        lambda group, settings: [instance.key for instance in group.instances],
        models=("writer",),
    ),
    WorkStep(
        "scene",
        Stage.SCENE,
        lambda units, models, settings, seed: stages.inpaint_scenes(units, models.inpainter, settings, seed),
        models=("inpainter",),
    ),
    WorkStep(
        "style",
        Stage.STYLE,
        lambda units, models, settings, seed: stages.stylize_scenes(units, models.stylizer, settings, seed),
        models=("stylizer",),
    ),
    WorkStep(
        "caption",
        Stage.CAPTION,
        lambda units, models, settings, seed: stages.caption_scenes(units, models.captioner, settings, seed),
        models=("captioner",),
    ),
    WorkStep(
        "set",
        Stage.SET,
        lambda units, models, settings, seed: stages.assemble_sets(_joined(units), settings, seed),
        _members,
        lambda scene: replace(scene.key, instance=None),
    ),
)
STEP_NAMES = tuple(step.name for step in STEPS)
MODEL_FAILED = Reason.MODEL_FAILED.name.lower()


@dataclass(frozen=True)
class Work:
    """Some objects of one round between two steps: the records to go on with, and what was noted before.

    collages: their records for the output, one a collage. looks: (key, picture) of the collages to be kept.
    counts and seconds: by step. The records are sets after the last step.
    """

    seed: int
    items: tuple[ObjectName, ...]
    records: tuple[Any, ...]
    collages: tuple[dict[str, Any], ...] = ()
    looks: tuple[Collage, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    counts: dict[str, StageCount] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def begin(seed: int, items: tuple[ObjectName, ...]) -> Work:
        """Return objects before the first step."""
        return Work(seed, items, items)

    @property
    def sets(self) -> tuple[ImageSet, ...]:
        """What came of it, after the last step."""
        return self.records

    @property
    def failures(self) -> list[Rejection]:
        """Records on which a model failed."""
        return [each for each in self.rejected if each.reason is Reason.MODEL_FAILED]


def units_of(step: WorkStep, records: Sequence[Any]) -> list[Unit]:
    """Return the records as a step takes them."""
    if step.together is None:
        return list(records)
    return [tuple(members) for _, members in groupby(records, key=step.together)]


def attempt(
    step: WorkStep, units: Sequence[Unit], models: Models, settings: StageSettings, seed: int
) -> Outcome[Any]:
    """Run one step on some units. Where it fails, its halves are tried, so that one bad record costs only
    itself.

    A record on which a model fails, or for which it breaks its protocol, is rejected with what it said.
    """
    try:
        return step.run(units, models, settings, seed)
    # Models raise nearly anything: errors of CUDA, of tokenizers, of pictures.
    except Exception as error:
        if len(units) == 1:
            detail = " ".join((str(error) or type(error).__name__).split())[:300]
            keys = step.lost(units[0], settings)
            return Outcome((), tuple(Rejection(key, step.stage, Reason.MODEL_FAILED, detail) for key in keys))
    middle = len(units) // 2
    halves = [attempt(step, part, models, settings, seed) for part in (units[:middle], units[middle:])]
    return Outcome(halves[0].kept + halves[1].kept, halves[0].rejected + halves[1].rejected)


def do_step(
    step: WorkStep,
    work: Work,
    models: Models,
    settings: StageSettings,
    batch: int,
    looks: int = 0,
    between: Callable[[StepDone, Sequence[Rejection]], None] = lambda done, rejected: None,
) -> Work:
    """Take all of a work's records through one step, `batch` units at a time; `between` is called after
    each.

    Of the collages that the step makes, the first `looks` are kept to be looked at.
    """
    start = time.perf_counter()
    units = units_of(step, work.records)
    kept: list[Any] = []
    rejected: list[Rejection] = []
    total = StageCount()
    for first in range(0, len(units), batch):
        chunk = units[first : first + batch]
        outcome = attempt(step, chunk, models, settings, work.seed)
        received = sum(len(step.lost(unit, settings)) for unit in chunk)
        reasons = Counter(each.reason.name.lower() for each in outcome.rejected)
        count = StageCount(received, len(outcome.kept), reasons)
        total.add(count)
        kept += outcome.kept
        rejected += outcome.rejected
        between(StepDone(step.name, count, len(work.items) * len(chunk) / len(units)), outcome.rejected)
    if not units:
        between(StepDone(step.name, StageCount(), len(work.items)), ())
    made = replace(
        work,
        records=tuple(kept),
        rejected=(*work.rejected, *rejected),
        counts={**work.counts, step.name: total},
        seconds={**work.seconds, step.name: time.perf_counter() - start},
    )
    if step.stage is Stage.COLLAGE:
        made = replace(made, collages=tuple(map(collage_record, kept)), looks=tuple(kept[:looks]))
    return made


def collage_record(collage: Collage) -> dict[str, Any]:
    """Return what the output says of a collage: its key, its prompt, and what the step noted."""
    return {**collage.key.as_json(), **collage.history[-1].details}


def check_failures(failures: Sequence[Rejection], limit: int) -> None:
    """Raise ModelError where more records failed than a recipe allows."""
    if len(failures) > limit:
        last = failures[-1]
        raise ModelError(
            f"Models failed on {len(failures)} records, more than the recipe's limit (run.failures) of "
            f"{limit}; the last, {last.key.item.name!r} in stage {last.stage}: {last.detail}"
        )


def in_order(items: Sequence[ObjectName], rejected: Sequence[Rejection]) -> Iterator[Rejection]:
    """Return rejections by object and then by stage, whichever order the work was done in."""
    places = {item: place for place, item in enumerate(items)}
    order = {stage: number for number, stage in enumerate(Stage)}
    return iter(sorted(rejected, key=lambda each: (places[each.key.item], order[each.stage])))


def do_all(
    seed: int,
    items: tuple[ObjectName, ...],
    models: Models,
    settings: StageSettings,
    batch: int = 16,
    looks: int = 0,
    between: Callable[[StepDone, Sequence[Rejection]], None] = lambda done, rejected: None,
) -> Work:
    """Run every step on some objects, one after the other in this process."""
    work = Work.begin(seed, items)
    for step in STEPS:
        work = do_step(step, work, models, settings, batch, looks, between)
    return work
