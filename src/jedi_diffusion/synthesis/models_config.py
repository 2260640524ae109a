"""Which model does which part: the `models` section of a recipe, checked without loading anything.

Every part has a `kind`, which names an adapter, and the adapter's settings. To add a kind, put its settings
class into the part's field of `ModelsConfig`, and into `BUILDERS` where the adapter is.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jedi_diffusion.errors import RecipeError
from jedi_diffusion.synthesis.adapters.endpoint import EndpointSettings
from jedi_diffusion.synthesis.adapters.settings import (
    Blip2Settings,
    ClipSettings,
    GroundingDinoSettings,
    InpaintingSettings,
    InstructPix2PixSettings,
    InstructSettings,
    SamSettings,
    TextToImageSettings,
)
from jedi_diffusion.synthesis.protocols import Models

ADAPTERS = "jedi_diffusion.synthesis.adapters"
BUILDERS = {
    ("writer", "instruct"): f"{ADAPTERS}.instruct:InstructPromptWriter",
    ("writer", "endpoint"): f"{ADAPTERS}.endpoint:connect",
    ("generator", "text-to-image"): f"{ADAPTERS}.pipelines:TextToImageGenerator",
    ("detector", "grounding-dino"): f"{ADAPTERS}.grounding_dino:GroundingDinoDetector",
    ("segmenter", "sam"): f"{ADAPTERS}.sam:SamSegmenter",
    ("embedder", "clip"): f"{ADAPTERS}.clip:ClipEmbedder",
    ("inpainter", "inpainting"): f"{ADAPTERS}.pipelines:PipelineInpainter",
    ("stylizer", "instruct-pix2pix"): f"{ADAPTERS}.pipelines:InstructPix2PixStylizer",
    ("captioner", "blip-2"): f"{ADAPTERS}.blip2:Blip2Captioner",
}
"""(part, kind) -> "module:name" of what makes the model from (settings, device); imported when it is made."""


class ModelsConfig(BaseModel):
    """A model for every part. `kind` may be left out where a part has one kind only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    writer: Annotated[InstructSettings | EndpointSettings, Field(discriminator="kind")]
    generator: TextToImageSettings
    detector: GroundingDinoSettings
    segmenter: SamSettings
    embedder: ClipSettings
    inpainter: InpaintingSettings
    stylizer: InstructPix2PixSettings
    captioner: Blip2Settings


def check_models(choices: Mapping[str, Any]) -> ModelsConfig:
    """{part: {"kind": ..., settings}} of a recipe, checked. Raises RecipeError naming every fault."""
    try:
        return ModelsConfig.model_validate(dict(choices))
    except ValidationError as error:
        faults = "; ".join(f"models.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"The models of the recipe do not fit: {faults}.") from error


def build_model(part: str, settings: BaseModel, device: str) -> Any:
    """The model of one part on `device` ("cpu", "cuda", "cuda:1"), loaded; its own `device` comes first.

    Raises ModelError or UsageError where it cannot be used.
    """
    module, name = BUILDERS[part, getattr(settings, "kind")].split(":")  # noqa: B009 - the union has no base
    return getattr(import_module(module), name)(settings, device)


def build_models(config: ModelsConfig, device: str) -> Models:
    """All models, loaded one after the other. Raises ModelError or UsageError for the first that fails."""
    return Models(
        **{part: build_model(part, getattr(config, part), device) for part in ModelsConfig.model_fields}
    )
