"""What every stage does to a few objects, in pictures, as in Figure 3 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from jedi_diffusion.page.html import Gallery, Part, Strip, Text, render_page
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.synthesis.collages import on_white
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.protocols import Models
from jedi_diffusion.synthesis.recipe import SynthesisRecipe
from jedi_diffusion.synthesis.records import Collage, Group, Instance, Rejection, Scene, Stage
from jedi_diffusion.synthesis.report.records import CollageRecord, InstanceRecord, step_of
from jedi_diffusion.synthesis.report.sheets import with_boxes
from jedi_diffusion.synthesis.scenes import Draft
from jedi_diffusion.synthesis.settings import StageSettings
from jedi_diffusion.synthesis.work import STEPS, Work, collage_record, do_step

COLLAGE_SIDE = 336
SIDE = 160
SUMMARY = (
    "From prompts to sets, collage by collage, as a run of the recipe makes them in its first round. "
    "Stages are numbered as in docs/synthesis.md."
)


@dataclass(frozen=True)
class Walk:
    """An object's work after every step, by the step's name."""

    item: ObjectName
    works: dict[str, Work]


def walk(
    recipe: SynthesisRecipe,
    item: ObjectName,
    models: Models,
    collages: int = 1,
    between: Callable[[], None] = lambda: None,
) -> Walk:
    """Return the first collages of an object through every stage, as the recipe's first round does them.

    between: is called after each batch. Records on which a model fails are rejected with what it said.
    """
    work, works = Work.begin(recipe.seed, (item,)), {}
    for step in STEPS:
        work = do_step(step, work, models, recipe.stages, recipe.run.batch, between=lambda *_: between())
        if step.stage is Stage.PROMPT:  # all are asked for, since the answer depends on their number
            planned = [each for each in work.records if each.key.collage < collages]
            early = [each for each in work.rejected if each.key.collage < collages]
            work = replace(work, records=tuple(planned), rejected=tuple(early))
        works[step.name] = work
    return Walk(item, works)


def walk_page(recipe: SynthesisRecipe, walks: Sequence[Walk]) -> str:
    """Return the page as HTML, a section a collage, pictures embedded."""
    parts: list[Part] = []
    for made in walks:
        plans, last = made.works["prompt"].records, made.works["set"]
        paths = [_Path(made, plan.key.collage, plan.prompt, recipe.stages) for plan in plans]
        parts += [Gallery(path.title, list(path.strips()), side=SIDE) for path in paths]
        lost = [
            f"Collage {each.key.collage}, stage {each.stage}: {_why(each)}."
            for each in last.rejected
            if each.box is None
        ]
        if lost:
            parts.append(Text(f"{made.item.name}: rejected without a place", lost))
    return render_page(f"What each stage does: {recipe.name}", SUMMARY, parts)


@dataclass(frozen=True)
class _Path:
    """One collage on its way."""

    made: Walk
    number: int
    prompt: str
    settings: StageSettings

    @property
    def title(self) -> str:
        return f"{self.made.item.name}, collage {self.number}"

    def of(self, step: str) -> list[Any]:
        """Return the collage's records after a step."""
        return [each for each in self.made.works[step].records if each.key.collage == self.number]

    @property
    def sets(self) -> list[ImageSet]:
        return [each for each in self.made.works["set"].sets if each.info["collage"] == self.number]

    @property
    def placed(self) -> list[Rejection]:
        """Instances that stages 3 and 4 dropped."""
        rejected = self.made.works["set"].rejected
        return [each for each in rejected if each.key.collage == self.number and each.box is not None]

    def strips(self) -> Iterator[Strip]:
        """Yield the pictures, stage by stage; instances keep their order, so that columns line up."""
        yield Strip("Stage 1: the prompt", [], f"“{self.prompt}”")
        for collage in self.of("collage"):
            yield self._collage(collage)
        drafts: list[Draft] = self.of("draft")
        scenes: list[Scene] = self.of("scene")
        styled: list[Scene] = self.of("style")
        rows = (
            (
                "Stage 4: cut out and compared",
                self._cutouts(),
                f"One subject: a cosine above {self.settings.affinity}.",
            ),
            ("Stage 5: pasted at a random place and scale", [(each.canvas, "") for each in drafts], ""),
            (
                "Stage 5: inpainted",
                [(each.picture, each.history[-1].details["prompt"]) for each in scenes],
                "",
            ),
            (
                f"Stage 6: restyled, with probability {self.settings.style_probability}",
                [(each.picture, _style(each)) for each in styled],
                "",
            ),
        )
        yield from (Strip(title, pictures, note) for title, pictures, note in rows if pictures)
        for each in self.sets:
            title = f"Stages 7 and 8: set {each.info['set']} of subject {each.info['group']}, with captions"
            yield Strip(title, list(zip(each.pictures, each.captions, strict=True)))

    def _collage(self, collage: Collage) -> Strip:
        kept = [
            InstanceRecord(
                picture["instance"],
                tuple(step_of(picture, Stage.INSTANCE)["box"]),
                group=each.info["group"],
                set=each.info["set"],
            )
            for each in self.sets
            for picture in each.info["pictures"]
        ]
        dropped = [InstanceRecord(each.key.instance or 0, each.box) for each in self.placed if each.box]
        boxed = with_boxes(collage.picture, CollageRecord(collage_record(collage), [], [*kept, *dropped]))
        told = [f"instance {each.key.instance}: {_why(each)}" for each in self.placed]
        texts = "; ".join([f"{len(kept)} instances come into sets, in a color for each set", *told])
        return Strip(
            "Stages 2 and 3: the collage, and the instances in it",
            [(collage.picture, ""), (boxed, texts)],
            side=COLLAGE_SIDE,
        )

    def _cutouts(self) -> list[tuple[Image.Image, str]]:
        """Return grouped instances, as they come on, then those that are alone."""
        groups: list[Group] = self.of("group")
        instances: list[Instance] = self.of("instance")
        shown = [
            (on_white(each), f"instance {each.key.instance}, subject {group.key.group}: {_near(details)}")
            for group in groups
            for each in group.instances
            for details in [each.history[-1].details["affinities"]]
        ]
        alone = {each.key.instance: each for each in self.placed if each.stage is Stage.GROUP}
        return shown + [
            (on_white(each), f"instance {each.key.instance}, alone: {_near(dict(found.affinities or ()))}")
            for each in instances
            for found in [alone.get(each.key.instance)]
            if found is not None
        ]


def _near(affinities: dict[str, float]) -> str:
    return ", ".join(f"{value:.2f} to {other}" for other, value in affinities.items()) or "no other"


def _style(scene: Scene) -> str:
    style: str | None = scene.history[-1].details["style"]
    return style or "left as it is"


def _why(rejection: Rejection) -> str:
    return f"{rejection.reason}{f' ({rejection.detail})' if rejection.detail else ''}"
