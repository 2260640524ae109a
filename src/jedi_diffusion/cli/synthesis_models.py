"""The models that a synthesis recipe can name: those of `jedi_diffusion.synthesis`, and the toybox's.

Packages of one level do not know each other, so the toybox meets the pipeline here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from jedi_diffusion.cli.models import quiet_libraries
from jedi_diffusion.errors import RecipeError
from jedi_diffusion.synthesis.models_config import ModelsConfig, build_model
from jedi_diffusion.synthesis.protocols import Models
from jedi_diffusion.synthesis.recipe import PARTS, Choices


class PlainSettings(BaseModel):
    """A model that has nothing to be set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str


class TemplateSettings(PlainSettings):
    """scenes: what may follow an object's name ("on the beach"); a short list where none is given."""

    kind: Literal["templates"] = "templates"
    scenes: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | None = None


class RaySettings(PlainSettings):
    """rays: of a pixel, a side; more is smoother and takes longer with its square."""

    rays: Annotated[int, Field(ge=1, le=8)] = 2


class BuiltIn(NamedTuple):
    """A model that needs no download: its settings, and what makes it of them."""

    settings: type[PlainSettings]
    make: Callable[[Any], Any]


def _templates(settings: TemplateSettings) -> Any:
    from jedi_diffusion.synthesis.adapters.templates import SCENES, TemplatePromptWriter

    return TemplatePromptWriter(settings.scenes or SCENES)


def _toybox_writer(settings: PlainSettings) -> Any:
    from jedi_diffusion.synthesis.adapters.templates import TemplatePromptWriter
    from jedi_diffusion.toybox.scenes import SCENES

    return TemplatePromptWriter(SCENES)


def _filters(settings: PlainSettings) -> Any:
    from jedi_diffusion.synthesis.adapters.filters import PillowStylizer

    return PillowStylizer()


def _plain_background(name: str) -> Callable[[PlainSettings], Any]:
    def make(settings: PlainSettings) -> Any:
        from jedi_diffusion.synthesis.adapters import plain_background

        return getattr(plain_background, name)()

    return make


def _toybox(name: str) -> Callable[[PlainSettings], Any]:
    def make(settings: PlainSettings) -> Any:
        from jedi_diffusion.toybox import stand_ins

        return getattr(stand_ins, name)(**settings.model_dump(exclude={"kind"}))

    return make


BUILT_IN = {
    ("writer", "templates"): BuiltIn(TemplateSettings, _templates),
    ("writer", "toybox"): BuiltIn(PlainSettings, _toybox_writer),
    ("generator", "toybox"): BuiltIn(RaySettings, _toybox("ToyboxGenerator")),
    ("detector", "plain-background"): BuiltIn(PlainSettings, _plain_background("PlainBackgroundDetector")),
    ("segmenter", "plain-background"): BuiltIn(PlainSettings, _plain_background("PlainBackgroundSegmenter")),
    ("embedder", "toybox"): BuiltIn(PlainSettings, _toybox("ToyboxEmbedder")),
    ("inpainter", "toybox"): BuiltIn(RaySettings, _toybox("ToyboxInpainter")),
    ("stylizer", "filters"): BuiltIn(PlainSettings, _filters),
    ("captioner", "toybox"): BuiltIn(PlainSettings, _toybox("ToyboxCaptioner")),
}
"""By part and kind; all other kinds are those of `synthesis.models_config`."""


def check_choices(choices: Choices) -> dict[str, BaseModel]:
    """The settings of each part's model, checked without loading it. Raises RecipeError with every fault."""
    checked: dict[str, BaseModel] = {}
    faults = []
    for part in PARTS:
        try:
            checked[part] = _settings_of(part, choices[part])
        except ValidationError as error:
            faults += [
                f"models.{'.'.join(map(str, (part, *each['loc'])))}: {each['msg']}" for each in error.errors()
            ]
    if faults:
        raise RecipeError(f"The models of the recipe do not fit: {'; '.join(faults)}.")
    return checked


def _settings_of(part: str, choice: Mapping[str, Any]) -> BaseModel:
    if (part, choice["kind"]) in BUILT_IN:
        return BUILT_IN[part, choice["kind"]].settings.model_validate(dict(choice))
    kinds = [kind for owner, kind in BUILT_IN if owner == part]
    try:
        settings: BaseModel = TypeAdapter(
            ModelsConfig.model_fields[part].rebuild_annotation()
        ).validate_python(dict(choice))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] in ("literal_error", "union_tag_invalid"):
            raise RecipeError(
                f"The models of the recipe do not fit: models.{part}.kind: there is no {choice['kind']!r}; "
                f"without a download there is {', '.join(kinds)}, and {first['ctx'].get('expected') or ''}"
                f"{first['ctx'].get('expected_tags') or ''}."
            ) from error
        raise
    return settings


def build(choices: Choices, device: str, parts: Collection[str] = PARTS) -> Models:
    """The models of some parts on a device ("cpu", "cuda:1"), None for the others.

    Raises RecipeError, ModelError and UsageError.
    """
    made: dict[str, Any] = dict.fromkeys(PARTS)
    if any((part, choices[part]["kind"]) not in BUILT_IN for part in parts):
        quiet_libraries()
    checked = check_choices(choices)
    for part in parts:
        settings = checked[part]
        entry = BUILT_IN.get((part, choices[part]["kind"]))
        made[part] = entry.make(settings) if entry else build_model(part, settings, device)
    return Models(**made)
