"""Synthesis recipes, and how a recipe's work is cut into shards.

A run makes `stages.collages` collages of every object in each of its rounds. A round has a seed of its own,
so that a list of a few thousand objects can be gone through again until there are millions of sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from jedi_diffusion.errors import RecipeError
from jedi_diffusion.options import Section
from jedi_diffusion.randomness import derive_seed
from jedi_diffusion.recipes import checked, read_yaml
from jedi_diffusion.synthesis.names import ObjectName, object_names, read_object_names
from jedi_diffusion.synthesis.settings import StageSettings

Part = Literal[
    "writer", "generator", "detector", "segmenter", "embedder", "inpainter", "stylizer", "captioner"
]
PARTS: tuple[Part, ...] = get_args(Part)
SHIPPED = "shipped"


class ModelChoice(BaseModel):
    """One model: `kind` names its adapter, every other key is a setting of that adapter."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Annotated[str, Field(min_length=1)]


class ModelsSection(Section):
    """A model for each part of Algorithm 1."""

    writer: ModelChoice
    generator: ModelChoice
    detector: ModelChoice
    segmenter: ModelChoice
    embedder: ModelChoice
    inpainter: ModelChoice
    stylizer: ModelChoice
    captioner: ModelChoice

    def plain(self) -> dict[str, dict[str, Any]]:
        """{part: {"kind": ..., settings}}."""
        return self.model_dump(mode="json")


class RunSection(Section):
    """How the work is cut, what is kept beside the sets, and how many records may fail."""

    objects_per_shard: PositiveInt = Field(8, description="objects whose sets go into one shard")
    batch: PositiveInt = Field(16, description="records that a model is given at a time")
    failures: NonNegativeInt = Field(100, description="records on which a model may fail before a run stops")
    kept_collages: NonNegativeInt = Field(
        8, description="collages a shard whose pictures are kept to look at"
    )
    pictures: Literal["jpg", "png", "webp"] = "jpg"
    quality: Annotated[int, Field(ge=1, le=100)] = 95


class RaySection(Section):
    """How the engine `ray` divides its work: an actor pool a step, or one whose actors do all steps (`fuse`).

    actors, gpus: of each step (`work.STEP_NAMES`), how many actors, if not as many as workers, and which part
    of a graphics card each holds, if not an eighth where there are any.
    """

    fuse: bool = False
    actors: dict[str, PositiveInt] = Field(default_factory=dict)
    gpus: dict[str, NonNegativeFloat] = Field(default_factory=dict)


class Seconds(Section):
    """Assumed seconds for one call of a model on one item, on the graphics card that is assumed."""

    writer: NonNegativeFloat = Field(0.5, description="a request to a language model of 7B, many at a time")
    generator: NonNegativeFloat = Field(5.0, description="SDXL, 1024 pixels, 50 steps")
    detector: NonNegativeFloat = Field(0.15, description="Grounding DINO")
    segmenter: NonNegativeFloat = Field(0.25, description="SAM (huge), all boxes of a collage")
    embedder: NonNegativeFloat = Field(0.01, description="CLIP, one instance")
    inpainter: NonNegativeFloat = Field(2.0, description="Stable Diffusion inpainting, 512 pixels, 50 steps")
    stylizer: NonNegativeFloat = Field(3.0, description="InstructPix2Pix, 512 pixels, 50 steps, 3 branches")
    captioner: NonNegativeFloat = Field(0.3, description="BLIP-2")


class Assumptions(Section):
    """What an estimate starts from: nothing of it is in the paper. A finished part of a run says better."""

    device: str = "A100"
    seconds: Seconds = Seconds.model_validate({})
    instances: PositiveFloat = Field(4.0, description="instances of a collage that pass the filters")
    pictures: PositiveFloat = Field(2.0, description="of them, those that share a subject with another")
    sets: PositiveFloat = Field(0.6, description="sets that come of a collage")
    picture_bytes: PositiveFloat = Field(
        0.25, description="bytes of storage for each pixel, its mask included"
    )


class SynthesisRecipe(Section):
    """One run: which objects, how often, with which models.

    objects: "shipped" (the list that comes with the package), a file (`names.read_object_names`), or the
    names themselves.
    """

    name: str
    seed: NonNegativeInt = 0
    objects: str | Annotated[list[str], Field(min_length=1)] = SHIPPED
    rounds: PositiveInt = Field(1, le=100_000, description="times that the list is gone through")
    stages: StageSettings = StageSettings.model_validate({})
    models: ModelsSection
    run: RunSection = RunSection.model_validate({})
    ray: RaySection = RaySection.model_validate({})
    estimate: Assumptions = Assumptions.model_validate({})

    def result_settings(self) -> dict[str, Any]:
        """Return everything that what is made depends on, as plain JSON values."""
        return self.model_dump(
            mode="json", exclude={"estimate": True, "ray": True, "run": {"batch", "failures"}}
        )


def load_recipe(path: Path, changes: tuple[str, ...] = ()) -> SynthesisRecipe:
    """Return the recipe of a YAML file with `changes` ("stages.collages=2"). Raises RecipeError."""
    return checked(SynthesisRecipe, read_yaml(path, changes), path)


def objects_of(recipe: SynthesisRecipe, path: Path) -> tuple[ObjectName, ...]:
    """Return the objects of a recipe that was read from `path`, beside which its list lies.

    Raises RecipeError for names that occur twice, UsageError for a list that cannot be read.
    """
    if recipe.objects == SHIPPED:
        return object_names()
    if isinstance(recipe.objects, str):
        return read_object_names(path.parent / recipe.objects)
    categories = {each.name: each.category for each in reversed(object_names())}
    names = [" ".join(name.split()) for name in recipe.objects]
    if len({name.lower() for name in names}) < len(names) or not all(names):
        raise RecipeError(f"The recipe {path} does not fit: objects: names must differ and not be empty.")
    return tuple(
        ObjectName(name, categories[name]) if name in categories else ObjectName(name) for name in names
    )


@dataclass(frozen=True)
class ShardPlan:
    """The objects of one shard, and the seed of its round."""

    number: int
    round: int
    seed: int
    items: tuple[ObjectName, ...]


def plan_shards(recipe: SynthesisRecipe, items: tuple[ObjectName, ...]) -> list[ShardPlan]:
    """Return every shard of a run, round after round."""
    size = recipe.run.objects_per_shard
    cuts = [items[first : first + size] for first in range(0, len(items), size)]
    return [
        ShardPlan(turn * len(cuts) + place, turn, round_seed(recipe.seed, turn), cut)
        for turn in range(recipe.rounds)
        for place, cut in enumerate(cuts)
    ]


def round_seed(seed: int, turn: int) -> int:
    """Return the seed of a round; that of the first is the recipe's own."""
    return derive_seed(seed, "", "round", turn) if turn else seed


Choices = Mapping[str, Mapping[str, Any]]
"""{part: {"kind": ..., settings}}, as `ModelsSection.plain` gives it."""
