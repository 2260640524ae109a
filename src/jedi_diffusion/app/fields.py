"""The fields of a request for pictures, checked, and the ask that they make."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from PIL import Image, ImageOps
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from jedi_diffusion.app.jobs import Ask
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.calls import Sampling
from jedi_diffusion.errors import JeDiError, UsageError
from jedi_diffusion.limits import (
    MAX_GUIDANCE,
    MAX_PROMPT,
    MAX_REFERENCES,
    MAX_SEED,
    MAX_STEPS,
    check_side,
    check_text,
)

MAX_PICTURES = 16
"""Pictures of one request."""
MAX_DEADLINE = 3600.0
Scale = Annotated[float, Field(ge=0, le=MAX_GUIDANCE, allow_inf_nan=False)]
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


class Fields(BaseModel):
    """What a request may say; OpenAI's fields first, then our own. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT, description="What to show.")]
    model: Annotated[str | None, Field(description="The name in /v1/models, or nothing.")] = None
    n: Annotated[int, Field(ge=1, le=MAX_PICTURES, description="Pictures, with seeds seed, seed + 1 ...")] = 1
    size: Annotated[
        str,
        Field(
            pattern=r"^(auto|\d{2,4}x\d{2,4})$", description="WIDTHxHEIGHT in pixels; auto: the model's own."
        ),
    ] = "auto"
    response_format: Annotated[
        Literal["b64_json", "url"],
        Field(description="The PNG itself, or an address on this server that holds it for some minutes."),
    ] = "b64_json"
    output_format: Literal["png"] = "png"
    background: Literal["auto", "opaque"] = "auto"
    user: Annotated[str | None, Field(max_length=256, description="Taken and not used.")] = None

    seed: Annotated[int | None, Field(ge=0, le=MAX_SEED, description="By default a random one.")] = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS, description="Denoising steps.")] = 25
    guidance_scale: Annotated[Scale, Field(description="Eq. 3's scale; in eq. 4 the text's.")] = 3.0
    image_guidance_scale: Annotated[Scale | None, Field(description="In eq. 4 the references' scale.")] = None
    guidance_mode: Literal["joint", "text_first", "image_first", "text_only"] = "joint"
    coupling: Annotated[
        Literal["joint", "cached"] | None, Field(description="The model's own if not given.")
    ] = None
    null_set: Literal["joint", "single"] = "joint"
    temperature: Annotated[
        float | None,
        Field(ge=0, le=1, description="How much noise a picture starts from; the model's own if not given."),
    ] = None
    reference_prompt: Annotated[
        list[Text],
        BeforeValidator(_listed),
        Field(max_length=MAX_REFERENCES, description="What the references show: one for all, or one each."),
    ] = Field(default_factory=list)
    deadline: Annotated[
        float | None,
        Field(gt=0, le=MAX_DEADLINE, allow_inf_nan=False, description="Seconds until it gives up."),
    ] = None


def read_fields(values: dict[str, Any]) -> Fields:
    """The fields, if all are right; null is what OpenAI's clients send for a field that is not given.

    Raises FieldError that names the first wrong one.
    """
    try:
        return Fields.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))[:100] or None
        if first["type"] == "extra_forbidden":
            raise FieldError(f"The field {name} is not supported here.", name) from None
        if first["type"] == "missing":
            raise FieldError(f"The field {name} is missing.", name) from None
        raise FieldError(f"The field {name} is wrong: {first['msg']}.", name) from None


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
        _explained("size", check_side, "size", side)
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
        sampling=sampling_of(fields, width, height),
    )


def sampling_of(fields: Fields, width: int, height: int) -> Sampling:
    """How the pictures of a request are computed."""
    return Sampling(
        height=height,
        width=width,
        steps=fields.steps,
        guidance=fields.guidance_scale,
        guidance_mode=fields.guidance_mode,
        image_guidance=fields.image_guidance_scale,
        coupling=fields.coupling,
        null_set=fields.null_set,
        temperature=fields.temperature,
    )
