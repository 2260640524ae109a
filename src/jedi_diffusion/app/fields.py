"""The fields of a request for pictures, checked, and the ask that they make."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from PIL import Image, ImageOps
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from jedi_diffusion.app.jobs import Ask
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.errors import JeDiError, UsageError
from jedi_diffusion.options import (
    ARGUMENTS,
    MAX_PROMPT,
    MAX_REFERENCES,
    Between,
    Sampling,
    Seed,
    Settings,
    SquareSampling,
    check_text,
    fault,
    read,
)

MAX_PICTURES = 16
"""Pictures of one request."""
MAX_DEADLINE = 3600.0
Text = Annotated[str, Field(max_length=MAX_PROMPT)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class FieldError(UsageError):
    """A field of a request is wrong; `param` is its name."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownModelError(JeDiError):
    """The request names a model that this server does not have."""


class OpenAIFields(Settings):
    """The fields of OpenAI's API, and which pictures are made."""

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
    """What to show."""
    model: str | None = None
    """The name in /v1/models, or nothing."""
    n: Annotated[int, Between(1, MAX_PICTURES)] = 1
    """Pictures, with seeds seed, seed + 1 ..."""
    size: Annotated[str, Field(pattern=r"^(auto|\d{2,4}x\d{2,4})$")] = "auto"
    """WIDTHxHEIGHT in pixels; auto: the model's own."""
    response_format: Literal["b64_json", "url"] = "b64_json"
    """The PNG itself, or an address on this server that holds it for some minutes."""
    output_format: Literal["png"] = "png"
    background: Literal["auto", "opaque"] = "auto"
    user: Annotated[str | None, Field(max_length=256)] = None
    """Taken and not used."""
    seed: Seed | None = None
    """By default a random one."""
    reference_prompt: Annotated[
        list[Text], BeforeValidator(_listed), Field(max_length=MAX_REFERENCES, default_factory=list)
    ]
    """What the references show: one for all, or one each."""
    deadline: Annotated[float | None, Field(gt=0, le=MAX_DEADLINE, allow_inf_nan=False)] = None
    """Seconds until it gives up."""


def _called(name: str) -> str:
    """The field of a setting: diffusers' name for it, but for the steps."""
    return name if name == "steps" else ARGUMENTS.get(name, name)


class Fields(Sampling, OpenAIFields):
    """What a request may say; OpenAI's fields first, then our own. Unknown fields are refused."""

    model_config = ConfigDict(alias_generator=_called)


def read_fields(values: dict[str, Any]) -> Fields:
    """The fields, if all are right; null is what OpenAI's clients send for a field that is not given.

    Raises FieldError that names the first wrong one.
    """
    try:
        return Fields.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        name = ".".join(map(str, error.errors(include_url=False, include_input=False)[0]["loc"]))[:100]
        raise FieldError(f"{fault(error)}.", name or None) from None


def check_fields(fields: Fields, references: int, card: ModelCard) -> tuple[int, int]:
    """Width and height of the pictures, after all checks that need no picture.

    Raises FieldError, UnknownModelError.
    """
    check_model(fields.model, card)
    for name, text in [
        ("prompt", fields.prompt),
        *(("reference_prompt", t) for t in fields.reference_prompt),
    ]:
        _explained(name, check_text, text)
    if references > MAX_REFERENCES:
        message = f"{references} references are given; at most {MAX_REFERENCES} are used at once."
        raise FieldError(message, "image")
    captions = len(fields.reference_prompt)
    if captions not in (0, 1, references):
        message = (
            f"{captions} reference prompts for {references} references: give none, one for all, or one each."
        )
        raise FieldError(message, "reference_prompt")
    if fields.size == "auto":
        return card.size, card.size
    width, height = map(int, fields.size.split("x"))
    for side in (width, height):
        _explained("size", read, SquareSampling, {"size": side})
        if side % card.factor:
            raise FieldError(f"size is {fields.size}, but sides must be multiples of {card.factor}.", "size")
    return width, height


def check_model(name: str | None, card: ModelCard) -> None:
    """Raises UnknownModelError unless the name is the card's, or none."""
    if name not in (None, "", card.name):
        raise UnknownModelError(f"There is no model {name[:80]!r} here; this server has {card.name!r}.")


def _explained(param: str, check: Any, *arguments: Any) -> None:
    try:
        check(*arguments)
    except UsageError as error:
        raise FieldError(str(error), param) from None


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The reference as the pipeline would cut and scale it, so that no larger one waits in memory."""
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def to_ask(fields: Fields, references: Sequence[Image.Image], width: int, height: int) -> Ask:
    """What the engine is asked; references are already `fitted`."""
    seed = secrets.randbelow(2**32) if fields.seed is None else fields.seed
    return Ask(
        prompts=(fields.prompt,) * fields.n,
        seeds=tuple(range(seed, seed + fields.n)),
        references=tuple(references),
        captions=tuple(fields.reference_prompt) if references else (),
        sampling=fields.at(height, width),
    )
