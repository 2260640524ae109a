"""Which model does which part: the `models` section of a recipe, checked without loading anything.

Every part has a `kind`, which names an adapter, and the adapter's settings. To add a kind, add a line to
`KINDS`, or give a table of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from jedi_diffusion import options
from jedi_diffusion.errors import RecipeError
from jedi_diffusion.models import quiet_libraries
from jedi_diffusion.synthesis.adapters.endpoint import EndpointSettings
from jedi_diffusion.synthesis.adapters.settings import (
    InpaintingSettings,
    InstructPix2PixSettings,
    InstructSettings,
    PlainSettings,
    TemplateSettings,
    TextToImageSettings,
)
from jedi_diffusion.synthesis.protocols import Models
from jedi_diffusion.synthesis.recipe import PARTS, Choices
from jedi_diffusion.vision.settings import (
    Blip2Settings,
    ClipSettings,
    GroundingDinoSettings,
    LocalSettings,
    SamSettings,
)


class Kind(NamedTuple):
    """A kind of model. settings: its class, with a field `kind`. make: what makes the model from (settings,
    device), or its "module:name", which is imported when the model is made.
    """

    settings: type[BaseModel]
    make: str | Callable[[Any, str], Any]


Kinds = Mapping[tuple[str, str], Kind]
"""By part and kind."""


class RaySettings(PlainSettings):
    """rays: of a pixel, a side; more is smoother and takes longer with its square."""

    rays: Annotated[int, Field(ge=1, le=8)] = 2


def _toybox_writer(settings: PlainSettings, device: str) -> Any:
    from jedi_diffusion.synthesis.adapters.templates import TemplatePromptWriter
    from jedi_toybox.scenes import SCENES

    return TemplatePromptWriter(SCENES)


def _stand_in(name: str) -> Callable[[PlainSettings, str], Any]:
    """Return what makes one of the toybox's models, which know their answers."""

    def make(settings: PlainSettings, device: str) -> Any:
        from jedi_toybox import stand_ins

        return getattr(stand_ins, name)(**settings.model_dump(exclude={"kind"}))

    return make


ADAPTERS, VISION = "jedi_diffusion.synthesis.adapters", "jedi_diffusion.vision"
KINDS: Final[Kinds] = {
    ("writer", "instruct"): Kind(InstructSettings, f"{ADAPTERS}.instruct:InstructPromptWriter"),
    ("writer", "endpoint"): Kind(EndpointSettings, f"{ADAPTERS}.endpoint:connect"),
    ("writer", "templates"): Kind(TemplateSettings, f"{ADAPTERS}.templates:make_writer"),
    ("generator", "text-to-image"): Kind(TextToImageSettings, f"{ADAPTERS}.pipelines:TextToImageGenerator"),
    ("detector", "grounding-dino"): Kind(
        GroundingDinoSettings, f"{VISION}.grounding_dino:GroundingDinoDetector"
    ),
    ("detector", "plain-background"): Kind(PlainSettings, f"{ADAPTERS}.plain_background:make_detector"),
    ("segmenter", "sam"): Kind(SamSettings, f"{VISION}.sam:SamSegmenter"),
    ("segmenter", "plain-background"): Kind(PlainSettings, f"{ADAPTERS}.plain_background:make_segmenter"),
    ("embedder", "clip"): Kind(ClipSettings, f"{VISION}.clip:ClipEmbedder"),
    ("inpainter", "inpainting"): Kind(InpaintingSettings, f"{ADAPTERS}.pipelines:PipelineInpainter"),
    ("stylizer", "instruct-pix2pix"): Kind(
        InstructPix2PixSettings, f"{ADAPTERS}.pipelines:InstructPix2PixStylizer"
    ),
    ("stylizer", "filters"): Kind(PlainSettings, f"{ADAPTERS}.filters:make_stylizer"),
    ("captioner", "blip-2"): Kind(Blip2Settings, f"{VISION}.blip2:Blip2Captioner"),
    ("writer", "toybox"): Kind(PlainSettings, _toybox_writer),
    ("generator", "toybox"): Kind(RaySettings, _stand_in("ToyboxGenerator")),
    ("embedder", "toybox"): Kind(PlainSettings, _stand_in("ToyboxEmbedder")),
    ("inpainter", "toybox"): Kind(RaySettings, _stand_in("ToyboxInpainter")),
    ("captioner", "toybox"): Kind(PlainSettings, _stand_in("ToyboxCaptioner")),
}


def check_models(choices: Mapping[str, Any], kinds: Kinds = KINDS) -> dict[str, BaseModel]:
    """{part: {"kind": ..., settings}} of a recipe -> {part: its settings}.

    Raises RecipeError naming every fault.
    """
    faults = [f"models.{part}: there is no such part" for part in choices if part not in PARTS]
    checked: dict[str, BaseModel] = {}
    for part in PARTS:
        kind = choices[part].get("kind") if part in choices else None
        own = [name for owner, name in kinds if owner == part]
        if part not in choices:
            faults.append(f"models.{part}: a model is missing")
        elif kind not in own:
            given = "a kind is missing" if kind is None else f"there is no {kind!r}"
            faults.append(f"models.{part}.kind: {given}; the kinds are {', '.join(own)}")
        else:
            try:
                checked[part] = kinds[part, kind].settings.model_validate(dict(choices[part]))
            except ValidationError as error:
                faults += options.faults(error, f"models.{part}.{{}}".format)
    if faults:
        raise RecipeError(f"The models of the recipe do not fit: {'; '.join(faults)}.")
    return checked


def build_model(part: str, settings: BaseModel, device: str, kinds: Kinds = KINDS) -> Any:
    """Return the model of one part on `device` ("cpu", "cuda", "cuda:1"), loaded; its own `device` comes
    first.

    Raises ModelError or UsageError where it cannot be used.
    """
    make = kinds[part, getattr(settings, "kind")].make  # noqa: B009 - the settings have no common base
    if isinstance(make, str):
        module, name = make.split(":")
        make = getattr(import_module(module), name)
    return make(settings, device)


def build_models(
    checked: Mapping[str, BaseModel], device: str, kinds: Kinds = KINDS, parts: Collection[str] = PARTS
) -> Models:
    """Return the models of some parts, loaded one after the other; None for the others.

    Raises ModelError or UsageError for the first that cannot be used.
    """
    made: dict[str, Any] = dict.fromkeys(PARTS)
    for part in parts:
        made[part] = build_model(part, checked[part], device, kinds)
    return Models(**made)


def build(choices: Choices, device: str, parts: Collection[str] = PARTS) -> Models:
    """Return the models of some parts on a device ("cpu", "cuda:1"), None for the others.

    Raises RecipeError, ModelError and UsageError.
    """
    checked = check_models(choices)
    if any(isinstance(checked[part], LocalSettings) for part in parts):
        quiet_libraries()
    return build_models(checked, device, parts=parts)
