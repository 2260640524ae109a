"""The settings of a call, each with its type, range, default and meaning, declared once.

The command line, batch lines, the API, the page, recipes and recorded settings inherit these models and are
built from their fields: a setting that is added here is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from jedi_diffusion.errors import UsageError

GuidanceMode = Literal["joint", "text_first", "image_first", "text_only"]
Coupling = Literal["joint", "cached"]
NullSet = Literal["joint", "single"]
Masking = Literal["tokens", "white"]
Device = Literal["auto", "cpu", "cuda", "mps"]
DType = Literal["auto", "float32", "float16", "bfloat16"]

MAX_REFERENCES = 16
"""Of one request to a server, which decodes them all before a model sees any."""
MAX_PICTURES = 10_000
MAX_PROMPT = 10_000
"""Characters; text encoders read some 77 words, so longer prompts are mistakes."""
MAX_SEED = 2**62

ARGUMENTS = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "image_guidance": "image_guidance_scale",
}
"""diffusers' names of settings that have shorter ones here."""
OF_MODEL = ("steps", "guidance", "image_guidance", "guidance_mode", "null_set")
"""Settings that are the model's own where nothing is said (`Backbone.own_sampling`)."""

Model = TypeVar("Model", bound=BaseModel)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise UsageError unless the value lies between low and high; NaN does not."""
    if not low <= value <= high:
        raise UsageError(f"{name} {_outside(value, low, high)}.")


def check_interval(start: float, stop: float, what: str = "guidance") -> None:
    """Raise UsageError unless something starts and stops between 0 and 1, in this order."""
    check_range(f"{what}_start", start, 0, 1)
    check_range(f"{what}_stop", stop, 0, 1)
    if start > stop:
        raise UsageError(f"{what}_start is {start}, but must not lie beyond {what}_stop, {stop}.")


def in_interval(step: int, steps: int, start: float, stop: float) -> bool:
    """Return whether a step, from 0, out of `steps` lies between these shares of them."""
    return round(start * steps) <= step < round(stop * steps)


def _outside(value: float, low: float, high: float) -> str:
    return f"is {value}, but must lie between {low} and {high}"


@dataclass(frozen=True)
class Between:
    """Bounds of a number, both inclusive, as metadata of a field; NaN lies outside."""

    low: float
    high: float

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return {**handler(schema), "minimum": self.low, "maximum": self.high}

    def _checked(self, value: float) -> float:
        if not self.low <= value <= self.high:
            raise PydanticCustomError("range", _outside(value, self.low, self.high))
        return value


def _readable(text: str) -> str:
    try:
        check_text(text)
    except UsageError as error:
        raise PydanticCustomError("text", "{reason}", {"reason": str(error)}) from error
    return text


Scale = Annotated[float, Between(0, 100)]
Fraction = Annotated[float, Between(0, 1)]
Seed = Annotated[int, Between(0, MAX_SEED)]
Words = Annotated[str, AfterValidator(_readable)]
Strength = Annotated[float, Field(gt=0, le=100)]
"""How much a reference counts."""
Side = Annotated[int, Field(multiple_of=8), Between(16, 2048)]
"""Pixels."""


class Section(BaseModel):
    """A part of a recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(Section):
    """Settings whose docstrings are what help texts and schemas say of them."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Denoising(Settings):
    """What any diffusion pipeline can be told."""

    steps: Annotated[int, Between(1, 1000)] = 25
    """Denoising steps."""
    guidance: Scale = 3.0
    """Scale of eq. 3, and of the text in the staged modes (eq. 4)."""

    def arguments(self) -> dict[str, Any]:
        """Return the settings as arguments of a pipeline's call, by diffusers' names."""
        names = [name for name in SizedSampling.model_fields if name in type(self).model_fields]
        return {ARGUMENTS.get(name, name): getattr(self, name) for name in names}


class Sampling(Denoising):
    """How pictures are sampled, of whatever size. `JeDiPipeline.__call__` takes the same."""

    guidance_mode: GuidanceMode = "joint"
    """Eq. 3 (joint), eq. 4 (text_first: more identity; image_first: more prompt), or on the text alone."""
    image_guidance: Scale | None = None
    """Scale of the references in the staged modes; that of the text if not given."""
    negative_prompt: Words | None = None
    """What pictures are guided away from, in words; nothing if not given."""
    embedded_guidance: Scale | None = None
    """Guidance that a model takes as an input (FLUX.1 [dev]); the model's own if not given."""
    match_norms: bool = False
    """Eq. 4 with both differences brought to the smaller of their norms: strong scales do not over-expose."""
    guidance_start: Fraction = 0.0
    """Share of the steps, 0 to 1, that come before guidance acts; there all conditions act unguided."""
    guidance_stop: Fraction = 1.0
    """Share of the steps, 0 to 1, after which guidance acts no longer, which saves time."""
    references_start: Fraction = 0.0
    """Share of the steps, 0 to 1, that come before the references are read."""
    references_stop: Fraction = 1.0
    """Share of the steps, 0 to 1, after which the references are read no longer, which saves time."""
    coupled_layers: str = "all"
    """Attention layers in which pictures read references: all, up (those of a UNet's upper half), or names
    and numbers with commas between them: up_blocks.1, 10:16, -6:."""
    auto_mask: bool = False
    """Find the subject of every reference that has no mask, and read nothing else of it."""
    masking: Masking | None = None
    """What masks leave out is not read (tokens), or painted white before all is read (white); the model's own
    if not given."""
    coupling: Coupling | None = None
    """The paper's form, or references computed once and reused; the model's own if not given."""
    null_set: NullSet = "joint"
    """The unconditional branch: with the re-noised references (paper), or each target alone (cheaper)."""
    temperature: Fraction | None = None
    """0 to 1: how much noise a picture starts from; less is calmer. The model's own if not given."""

    @model_validator(mode="after")
    def _interval_is_one(self) -> Self:
        check_interval(self.guidance_start, self.guidance_stop)
        check_interval(self.references_start, self.references_stop, "references")
        return self

    def at(self, height: int, width: int) -> SizedSampling:
        """Return these settings for pictures of this size in pixels; what is left open has its default."""
        chosen = {name: value for name, value in self.sampling().items() if value is not None}
        return SizedSampling(height=height, width=width, **chosen)

    def sampling(self) -> dict[str, Any]:
        """Return these settings alone, by name, without what a subclass adds."""
        return {name: getattr(self, name) for name in Sampling.model_fields}


class SizedSampling(Sampling):
    """How the pictures of one call are computed; sides in pixels."""

    height: int
    width: int


class SquareSampling(Sampling):
    """How square pictures are sampled."""

    size: Side | None = None
    """Side of the pictures in pixels; the model's own if not given."""


class Compute(Settings):
    """Where and in which numbers a model runs."""

    device: Device = "auto"
    """Where to compute."""
    dtype: DType = "auto"
    """Number format; float32, on CUDA bfloat16, if not given."""


def without_defaults(record: Mapping[str, object]) -> dict[str, object]:
    """Drop sampling settings that have their defaults, which records of versions without them lack."""
    usual = Sampling().model_dump() | Sampling().arguments()
    return {name: each for name, each in record.items() if name not in usual or usual[name] != each}


def read(kind: type[Model], values: object, called: Callable[[str], str] = str) -> Model:
    """Return the model of these values.

    Raise UsageError that says the first fault; `called` names its field.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{fault(error, called)}.") from error


def fault(error: ValidationError, called: Callable[[str], str] = str) -> str:
    """Return the first fault in words, without a full stop: "steps is 0, but must lie between 1 and 1000"."""
    return faults(error, called)[0]


def faults(error: ValidationError, called: Callable[[str], str] = str) -> list[str]:
    """Return every fault in words: the field as `called` names it, its value, and what it must be."""
    return [_said(each, called) for each in error.errors(include_url=False)]


def _said(details: ErrorDetails, called: Callable[[str], str]) -> str:
    place, message = ".".join(map(str, details["loc"]))[:100], details["msg"]
    name = called(place) if place else "the top level"
    if details["type"] in ("missing", "extra_forbidden"):
        return f"{name} is {'missing' if details['type'] == 'missing' else 'not known'}"
    if details["type"] == "range":
        return f"{name} {message}"
    value, expected = repr(details["input"]), message.removeprefix("Input should be ")
    if expected != message:
        return f"{name} is {value if len(value) <= 60 else value[:60] + '...'}, but must be {expected}"
    message = message.removeprefix("Value error, ").removesuffix(".")
    return f"{name}: {message}" if place else message


def as_option(name: str) -> str:
    """Return a field, or an item of one, as it is typed on a command line: "--image-guidance"."""
    return "--" + name.partition(".")[0].removesuffix("_").replace("_", "-")


def check_options(given: object, limits: Mapping[str, tuple[float, float]]) -> None:
    """Raise UsageError for an option of a command, a field of `given`, that is not within its limits. None
    is an option that is not given."""
    for name, (low, high) in limits.items():
        value = getattr(given, name)
        if value is not None:
            check_range(as_option(name), value, low, high)


def check_text(prompt: str) -> None:
    """Raise UsageError for a prompt that is too long, holds control characters, or is no valid Unicode."""
    if len(prompt) > MAX_PROMPT:
        raise UsageError(f"A prompt has {len(prompt)} characters; at most {MAX_PROMPT} are accepted.")
    odd = next((letter for letter in prompt if ord(letter) < 32 and letter not in "\t\n\r"), None)
    if odd is not None:
        raise UsageError(f"A prompt holds the control character U+{ord(odd):04X}; take it out.")
    if any(0xD800 <= ord(letter) < 0xE000 for letter in prompt):
        raise UsageError("A prompt is not valid Unicode text.")
