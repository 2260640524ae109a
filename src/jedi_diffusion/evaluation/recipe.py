"""What recipes of `jedi evaluate` say of the subjects, and of the encoders that judge their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from jedi_diffusion.options import Section
from jedi_diffusion.vision.settings import GROUNDING_DINO, SAM, SCORING_CLIP, SCORING_DINO


class SetSection(Section):
    """What all evaluation sets share."""

    references: Annotated[int, Field(ge=1, le=16, description="photos that a picture is made from")] = 1
    inputs: Literal["picks", "all"] = "picks"
    samples: Annotated[int, Field(ge=1, le=1000, description="pictures of each prompt")] = 4
    seed: int = Field(0, ge=0, lt=2**31)


class DreamBenchSection(SetSection):
    """The 30 subjects of DreamBench. `data`: a clone of google/dreambooth; `subjects`: some of them."""

    kind: Literal["dreambench"]
    data: str
    subjects: tuple[str, ...] = ()


class FolderSection(SetSection):
    """A folder of own subjects."""

    kind: Literal["folder"]
    data: str


class ToyboxSection(SetSection):
    """Held-out subjects of the toybox, rendered with a true picture for each prompt."""

    kind: Literal["toybox"]
    subjects: PositiveInt = 20
    prompts: Annotated[int, Field(ge=1, le=29, description="prompts of each subject")] = 2
    classes: Literal["known", "held_out"] = "known"
    size: Annotated[int, Field(ge=16, le=1024, multiple_of=8, description="pixels of a side")] = 128

    @model_validator(mode="after")
    def _references_are_there(self) -> ToyboxSection:
        if self.references > 3:
            raise ValueError("references: the toybox renders 3 input photos a subject")
        return self


class PretrainedSection(Section):
    """CLIP ViT-B/32 and DINO ViT-S/16: transformers folders of safetensors, or Hub ids.

    detector, segmenter: Grounding DINO and SAM, which find the subject for `masks: found`.
    """

    kind: Literal["pretrained"]
    clip: str = SCORING_CLIP
    dino: str = SCORING_DINO
    detector: str = GROUNDING_DINO
    segmenter: str = SAM


class ToyboxEncoders(Section):
    """The toybox's own encoders: no download, toybox pictures only."""

    kind: Literal["toybox"]


class LiteSection(Section):
    """EfficientNet-Lite2 or Lite0: real pictures, no download (extra `imagenet`).

    places: a file of `jedi evaluate places`; judges the place that prompts name.
    """

    kind: Literal["lite2", "lite0"]
    places: str | None = None


Judge = Annotated[PretrainedSection | LiteSection | ToyboxEncoders, Field(discriminator="kind")]


class Evaluation(Section):
    """What methods are compared on: a set, encoders, and how scores are averaged."""

    name: str
    set: DreamBenchSection | FolderSection | ToyboxSection = Field(discriminator="kind")
    encoders: Annotated[tuple[Judge, ...], Field(min_length=1, description="one, or a list")]
    masks: Literal["no", "given", "found"] = "no"
    average: Literal["pairs", "subjects"] = "pairs"
    batch: PositiveInt = Field(4, description="pictures computed at once")

    @field_validator("encoders", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value
