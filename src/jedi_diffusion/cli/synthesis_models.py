"""The models that a synthesis recipe can name: the kinds of `jedi_diffusion.synthesis`, and the toybox's.

Packages of one level do not know each other, so the toybox meets the pipeline here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from jedi_diffusion.models import quiet_libraries
from jedi_diffusion.synthesis.adapters.settings import PlainSettings
from jedi_diffusion.synthesis.models_config import KINDS, Kind, Kinds, build_models, check_models
from jedi_diffusion.synthesis.protocols import Models
from jedi_diffusion.synthesis.recipe import PARTS, Choices
from jedi_diffusion.vision.settings import LocalSettings


class RaySettings(PlainSettings):
    """rays: of a pixel, a side; more is smoother and takes longer with its square."""

    rays: Annotated[int, Field(ge=1, le=8)] = 2


def _writer(settings: PlainSettings, device: str) -> Any:
    from jedi_diffusion.synthesis.adapters.templates import TemplatePromptWriter
    from jedi_toybox.scenes import SCENES

    return TemplatePromptWriter(SCENES)


def _stand_in(name: str) -> Callable[[PlainSettings, str], Any]:
    def make(settings: PlainSettings, device: str) -> Any:
        from jedi_toybox import stand_ins

        return getattr(stand_ins, name)(**settings.model_dump(exclude={"kind"}))

    return make


ALL_KINDS: Final[Kinds] = {
    **KINDS,
    ("writer", "toybox"): Kind(PlainSettings, _writer),
    ("generator", "toybox"): Kind(RaySettings, _stand_in("ToyboxGenerator")),
    ("embedder", "toybox"): Kind(PlainSettings, _stand_in("ToyboxEmbedder")),
    ("inpainter", "toybox"): Kind(RaySettings, _stand_in("ToyboxInpainter")),
    ("captioner", "toybox"): Kind(PlainSettings, _stand_in("ToyboxCaptioner")),
}


def check_choices(choices: Choices) -> dict[str, BaseModel]:
    """The settings of each part's model, checked without loading it. Raises RecipeError with every fault."""
    return check_models(choices, ALL_KINDS)


def build(choices: Choices, device: str, parts: Collection[str] = PARTS) -> Models:
    """The models of some parts on a device ("cpu", "cuda:1"), None for the others.

    Raises RecipeError, ModelError and UsageError.
    """
    checked = check_choices(choices)
    if any(isinstance(checked[part], LocalSettings) for part in parts):
        quiet_libraries()
    return build_models(checked, device, ALL_KINDS, parts)
