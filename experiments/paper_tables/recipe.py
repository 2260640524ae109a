"""The recipe of the paper's tables: what is trained, on how much, and over which settings is swept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from jedi_diffusion.options import Section
from jedi_diffusion.train.config import JointStage, Recipe, Stage

RECIPES = {path.stem: path for path in sorted(Path(__file__).with_name("recipes").glob("*.yaml"))}
"""Those that come with the experiment, by name."""

TableKey = Literal[
    "2", "3", "4", "5", "6", "7", "8", "9", "10", "references", "coupling", "null_set", "steps"
]
Scheduler = Literal["model", "dpm++", "euler"]
Scale = Annotated[float, Field(ge=0, le=100)]


class SetSection(Section):
    """The evaluation subjects, the same for every table. `inputs`: photos that references are taken from."""

    subjects: Annotated[int, Field(ge=2, le=1000)] = 30
    prompts: Annotated[int, Field(ge=1, le=20, description="prompts of each subject")] = 3
    samples: Annotated[int, Field(ge=1, le=100, description="pictures of each prompt")] = 2
    inputs: Annotated[int, Field(ge=3, le=12)] = 8
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class SamplingSection(Section):
    """How pictures are made wherever a table does not vary it."""

    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    guidance: Scale = 3.0
    batch: Annotated[int, Field(ge=1, description="pictures computed at once")] = 8


class DataSection(Section):
    """Training sets. `amounts`: subjects of same-subject sets (Table 3), of which the last is what all other
    methods train on. `views`: subjects rendered from all sides in one plain scene, with one caption, which
    are there at every amount. A step draws from either with equal chances.
    """

    amounts: Annotated[tuple[int, int, int, int], Field(description="0 first, ascending")]
    views: PositiveInt
    compiled: bool = Field(True, description="compile the renderer: two minutes, then many times as fast")

    @model_validator(mode="after")
    def _ascend(self) -> DataSection:
        if self.amounts[0] != 0 or sorted(set(self.amounts)) != list(self.amounts):
            raise ValueError("amounts: the first must be 0, and each larger than the one before")
        return self


class EncoderSection(Stage):
    """The stand-in for CLIP's image encoder, trained against captions; never trained further."""

    features: PositiveInt = 128
    tokens: PositiveInt = Field(4, description="tokens of a reference")


class LearnedSection(Section):
    """The learned encoder: side * side tokens a reference."""

    width: PositiveInt = 128
    side: PositiveInt = 4


class FitSection(Section):
    """How a finetuning method fits each subject."""

    fit_steps: Annotated[int, Field(ge=1)] = 200
    fit_batch: Annotated[int, Field(ge=1, le=1024)] = 3
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    prior_pictures: Annotated[int, Field(ge=0, le=10_000)] = 12


class FinetuningSection(Section):
    """Both finetuning methods of the paper, on the single-image backbone."""

    dreambooth: FitSection
    custom_diffusion: FitSection


class SweepSection(Section):
    """What tables vary. `scales`: of guidance (Table 6, Figure 11) where there is one; in the two-stage
    strategies text and references have every two different scales of `both`. `references`: numbers of them.
    """

    scales: Annotated[tuple[Scale, ...], Field(min_length=2)] = (1.5, 2.5, 4.0, 6.0, 8.0, 10.0)
    both: Annotated[tuple[Scale, ...], Field(min_length=2)] = (1.5, 4.0, 10.0)
    references: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 3, 4, 6, 8)
    steps: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (5, 10, 25, 50)
    schedulers: Annotated[tuple[Scheduler, ...], Field(min_length=1)] = ("model", "dpm++", "euler")


class TimingSection(Section):
    """Seconds of one step. `large`: also at the size of Stable Diffusion 1.4, with random weights."""

    repetitions: PositiveInt = 5
    large: bool = True


class SynthesisSection(Section):
    """A run of `jedi synthesize` whose report gives Table 8. `set`: keys that are changed."""

    recipe: str
    set: tuple[str, ...] = ()


class EstimateSection(Section):
    """Rates as measured on some machine, for the estimate of time; they change nothing else."""

    trained: PositiveFloat = Field(description="pictures a second, forward and backward")
    sampled: PositiveFloat = Field(description="pictures a second through the network, one step")


class PaperRecipe(Section):
    """Everything that decides the tables. `backbone`: an autoencoder's stage, then single pictures;
    `training`: every method, from the backbone.
    """

    name: str
    tables: Annotated[tuple[TableKey, ...], Field(min_length=1)]
    set: SetSection = SetSection()
    sampling: SamplingSection = SamplingSection()
    backbone: Recipe
    training: JointStage
    data: DataSection
    encoder: EncoderSection
    learned: LearnedSection = LearnedSection()
    finetuning: FinetuningSection
    sweeps: SweepSection = SweepSection()
    timing: TimingSection = TimingSection()
    synthesis: SynthesisSection | None = None
    estimate: EstimateSection

    @model_validator(mode="after")
    def _parts_fit(self) -> PaperRecipe:
        if len(set(self.tables)) < len(self.tables):
            raise ValueError("tables: one is named twice")
        for stage in self.backbone.stages[1:]:
            if not isinstance(stage, JointStage) or set(stage.set_sizes) != {1}:
                raise ValueError("backbone: after the autoencoder it trains sets of one, set_sizes: {1: 1}")
        if len(self.backbone.stages) < 2:
            raise ValueError("backbone: it needs a stage of single pictures after the autoencoder")
        if self.training.subjects != self.data.amounts[-1]:
            raise ValueError(
                f"training.subjects is {self.training.subjects}, but data.amounts ends in "
                f"{self.data.amounts[-1]}: both say what all methods train on"
            )
        if len(set(self.sweeps.both)) < len(self.sweeps.both):
            raise ValueError("sweeps.both: one scale is named twice")
        if max(self.sweeps.references) > self.set.inputs:
            raise ValueError(
                f"sweeps.references goes up to {max(self.sweeps.references)}, but set.inputs is "
                f"{self.set.inputs}"
            )
        if self.sampling.guidance == 1.0 or not self.sampling.guidance:
            raise ValueError("sampling.guidance: 0 and 1 are no guidance, which Table 4 compares with")
        return self

    @property
    def size(self) -> int:
        """Pixels of a side, of pictures that are trained on, made and scored."""
        return self.training.resolution
