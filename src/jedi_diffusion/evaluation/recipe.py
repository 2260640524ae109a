"""Recipes of `jedi evaluate`: what is compared, on which subjects, judged by which encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from jedi_diffusion.options import Denoising, DType, Sampling, Section, Side
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


class MethodSection(Section):
    """What all methods share. The name is that of the folder of its pictures and of its row."""

    name: Annotated[str, Field(pattern=r"^[\w(][\w ().,+-]*$", max_length=80)]


class SampledMethod(MethodSection, Denoising):
    """A model, and how it is sampled; `model` is "toybox" (bundled), a folder, or a Hub id."""

    model: str = "toybox"
    size: Side | None = None
    dtype: DType = "auto"


class ModelMethod(SampledMethod, Sampling):
    """A joint model; a single-image one runs untrained (the training-free variant)."""

    kind: Literal["model"]


class TextOnlyMethod(SampledMethod, Sampling):
    """The same model without the references."""

    kind: Literal["text_only"]


class TrainingFreeMethod(SampledMethod, Sampling):
    """Coupled attention and replacement on any model, untrained, its input withheld."""

    kind: Literal["training_free"]
    coupling: Literal["joint"] | None = None


class FinetunedMethod(SampledMethod):
    """What finetuning methods share: how each subject is fitted. What is not given is the method's own."""

    fit_steps: Annotated[int | None, Field(ge=0, description="0: nothing is fitted")] = None
    learning_rate: Annotated[float | None, Field(gt=0, le=10)] = None
    fit_batch: Annotated[int | None, Field(ge=1, le=1024, description="references a step")] = None
    prior_pictures: Annotated[int | None, Field(ge=0, le=10_000, description="0: no preservation")] = None
    prior_weight: Annotated[float | None, Field(ge=0, le=1000)] = None
    fit_seed: int = Field(0, ge=0, lt=2**31)
    dtype: Literal["auto", "float32"] = "auto"


class DreamBoothMethod(FinetunedMethod):
    """DreamBooth with prior preservation: all weights, or LoRA of a rank."""

    kind: Literal["dreambooth"]
    rank: Annotated[int | None, Field(ge=1, le=1024)] = None


class TextualInversionMethod(FinetunedMethod):
    """Textual Inversion: one new word."""

    kind: Literal["textual_inversion"]


class CustomDiffusionMethod(FinetunedMethod):
    """Custom Diffusion: keys and values of the cross-attention, and one new word."""

    kind: Literal["custom_diffusion"]


class SVDiffMethod(FinetunedMethod):
    """SVDiff: singular values of the weights."""

    kind: Literal["svdiff"]


class DiffuseKronAMethod(FinetunedMethod):
    """DiffuseKronA: Kronecker products on the attention layers. `factor`: near A's sides; none: roots."""

    kind: Literal["diffusekrona"]
    factor: Annotated[int | None, Field(ge=1, le=1024)] = None


class IPAdapterMethod(SampledMethod):
    """IP-Adapter on a single-image model. `weights`: a safetensors file; `image_encoder`: a CLIP folder."""

    kind: Literal["ip_adapter"]
    model: str
    weights: str
    image_encoder: str
    scale: Annotated[float, Field(ge=0, le=10)] = 1.0
    size: Side = 512


class BlipDiffusionMethod(SampledMethod):
    """BLIP-Diffusion. `model`: its diffusers folder; `vocabulary`: the tokenizer of BERT, uncased."""

    kind: Literal["blip_diffusion"]
    model: str
    vocabulary: str = "google-bert/bert-base-uncased"
    size: Side = 512


class CopyMethod(MethodSection):
    """Gives back a reference."""

    kind: Literal["copy"]


class OracleMethod(MethodSection):
    """Gives the true picture of the prompt; for sets that have them."""

    kind: Literal["oracle"]


Fitted = DreamBoothMethod | TextualInversionMethod | CustomDiffusionMethod | SVDiffMethod | DiffuseKronAMethod
ThroughDiffusers = IPAdapterMethod | BlipDiffusionMethod
Method = Annotated[
    ModelMethod | TextOnlyMethod | TrainingFreeMethod | Fitted | ThroughDiffusers | CopyMethod | OracleMethod,
    Field(discriminator="kind"),
]


class EvaluationRecipe(Section):
    """One evaluation: a set, methods, encoders, and how scores are averaged."""

    name: str
    set: DreamBenchSection | FolderSection | ToyboxSection = Field(discriminator="kind")
    encoders: Annotated[tuple[Judge, ...], Field(min_length=1, description="one, or a list")]
    masks: Literal["no", "given", "found"] = "no"
    average: Literal["pairs", "subjects"] = "pairs"
    batch: PositiveInt = Field(4, description="pictures computed at once")
    methods: Annotated[tuple[Method, ...], Field(min_length=1)]

    @field_validator("encoders", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _names_differ(self) -> EvaluationRecipe:
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names):
            raise ValueError("methods: two methods have the same name")
        return self
