"""The fields of a request for pictures, checked, and the ask that they make."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from PIL import Image, ImageOps
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from jedi_diffusion.app.jobs import Ask, Output, PictureFormat
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
    SizedSampling,
    SquareSampling,
    Strength,
    check_text,
    fault,
    read,
)
from jedi_diffusion.references import Reference

MAX_PICTURES = 16
"""Pictures of one request."""
MAX_PARTIAL = 3
"""Rough pictures that a stream shows of each picture."""
MAX_DEADLINE = 3600.0
QUALITY = {"low": 0.4, "medium": 1.0, "high": 2.0, "xhigh": 4.0, "max": 8.0}
"""Steps of each quality, in shares of the model's own."""
QUALITIES = {"auto": "medium", "standard": "medium", "hd": "high"}
"""Older names of qualities, and the one that is taken where none is given."""
GUIDANCE = {"guidance_mode", "guidance", "image_guidance"}
"""Settings that the input fidelity stands in for."""
NO_OTHER_FORMAT = "pictures are made as PNG, JPEG or WebP"
UNSUPPORTED = {
    "mask": "pictures are made anew, not painted over; what of a photo is read goes into reference_mask",
    "markup": "nothing is drawn over a reference; say in the prompt what to change",
    **dict.fromkeys(("svg", "frame_count", "frame_duration_ms"), NO_OTHER_FORMAT),
}
"""Fields of OpenAI's API that are refused, and why."""
UNSUPPORTED_VALUES = {
    "background": {"transparent": "the model makes whole pictures; cut the subject out afterwards"},
    "output_format": dict.fromkeys(("gif", "svg"), NO_OTHER_FORMAT),
}
"""Values that are refused, and why."""
Text = Annotated[str, Field(max_length=MAX_PROMPT)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int | float) else value


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
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] = "auto"
    """Steps, where these are not given: 10, 25, 50, 100 or 200; auto and standard: 25, hd: 50."""
    input_fidelity: Literal["low", "high"] = "low"
    """high: stay close to the references, by more guidance on them and less on the text, where no guidance
    is given."""
    response_format: Literal["b64_json", "url"] = "b64_json"
    """The picture itself, or an address on this server that holds it for some minutes."""
    output_format: PictureFormat = "png"
    """PNGs hold the settings, all formats the mark of this program."""
    output_compression: Annotated[int, Between(0, 100)] = 100
    """Quality of a JPEG or WebP; 100 is the best."""
    background: Literal["auto", "opaque"] = "auto"
    """Pictures are opaque."""
    stream: bool = False
    """Answer with server-sent events: rough pictures, then each picture as soon as it is finished."""
    partial_images: Annotated[int, Between(0, MAX_PARTIAL)] = 0
    """Rough pictures of each picture in a stream, at most: few steps have fewer."""
    user: Annotated[str | None, Field(max_length=256)] = None
    """Taken and not used."""
    safety_identifier: Annotated[str | None, Field(max_length=256)] = None
    """Taken and not used."""
    moderation: Literal["auto", "low"] = "auto"
    """Taken and not used: nothing is moderated here."""
    style: Literal["vivid", "natural"] | None = None
    """Taken and not used; say the style in the prompt."""
    complexity: Literal["low", "medium", "high"] | None = None
    """Taken and not used: nothing is planned here."""
    seed: Seed | None = None
    """By default a random one."""
    reference_prompt: Annotated[
        list[Text], BeforeValidator(_listed), Field(max_length=MAX_REFERENCES, default_factory=list)
    ]
    """What the references show: one for all, or one each."""
    reference_strength: Annotated[
        list[Strength], BeforeValidator(_listed), Field(max_length=MAX_REFERENCES, default_factory=list)
    ]
    """How much the references count, 2 as if given twice: one for all, or one each."""
    deadline: Annotated[float | None, Field(gt=0, le=MAX_DEADLINE, allow_inf_nan=False)] = None
    """Seconds until it gives up."""


def _called(name: str) -> str:
    """Return the field of a setting: diffusers' name for it, but for the steps."""
    return name if name == "steps" else ARGUMENTS.get(name, name)


class Fields(Sampling, OpenAIFields):
    """What a request may say; OpenAI's fields first, then our own. Unknown fields are refused."""

    model_config = ConfigDict(alias_generator=_called)

    @property
    def quality_level(self) -> str:
        """The quality by its present name, low to max."""
        return QUALITIES.get(self.quality, self.quality)

    @property
    def output(self) -> Output:
        return Output(self.output_format, self.output_compression)

    def over(self, own: Sampling) -> Sampling:
        """Return the settings of the request over the model's own.

        Quality and input fidelity stand in for settings that are not given.
        """
        meant: dict[str, Any] = {"steps": steps_of(own, QUALITY[self.quality_level])}
        if self.input_fidelity == "high" and not GUIDANCE & self.model_fields_set:
            meant |= leaning(own, -1.0)
        given = self.model_fields_set & Sampling.model_fields.keys()
        return own.model_copy(update=meant | {name: getattr(self, name) for name in given})


def steps_of(own: Sampling, share: float) -> int:
    """Return a share of a model's own steps, at least one."""
    return max(1, round(share * own.steps))


def leaning(own: Sampling, balance: float) -> dict[str, Any]:
    """Return a model's own guidance, leaning to the references (balance -1) or to the prompt (1).

    The paper finds more identity with the text first, and more prompt with the references first (Table 6).
    Beside that the favoured side's scale grows by up to half, and the other's shrinks as much. Where a model
    does without guidance on the text, the references' scale moves alone.
    """
    text = own.guidance
    image = text if own.image_guidance is None else own.image_guidance
    mode = "image_first" if balance > 0 and text != 1 else "text_first"
    chosen = {"guidance_mode": mode, "image_guidance": round(image * (1 - balance / 2), 2)}
    return chosen if text == 1 else {**chosen, "guidance": round(text * (1 + balance / 2), 2)}


def read_fields(values: dict[str, Any]) -> Fields:
    """Return the fields, if all are right; null is what OpenAI's clients send for a field that is not given.

    Raises FieldError that names the first wrong one.
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        check_supported(name, value)
    try:
        return Fields.model_validate(given)
    except ValidationError as error:
        name = ".".join(map(str, error.errors(include_url=False, include_input=False)[0]["loc"]))[:100]
        raise FieldError(f"{fault(error)}.", name or None) from None


def check_supported(name: str, value: object = None) -> None:
    """Raise FieldError, with the reason, for what OpenAI's API has and this server does not."""
    plain = name.partition("[")[0]
    reason = UNSUPPORTED.get(plain)
    if reason is not None:
        raise FieldError(f"The field {plain} is not supported here: {reason}.", plain)
    reason = UNSUPPORTED_VALUES.get(name, {}).get(value) if isinstance(value, str) else None
    if reason is not None:
        raise FieldError(f"{name} {value} is not supported here: {reason}.", name)


def check_fields(fields: Fields, references: int, card: ModelCard, masks: int = 0) -> tuple[int, int]:
    """Return width and height of the pictures, after all checks that need no picture; of that many references
    and masks.

    Raises FieldError, UnknownModelError.
    """
    check_model(fields.model, card)
    for name, text in [
        ("prompt", fields.prompt),
        *(("reference_prompt", t) for t in fields.reference_prompt),
    ]:
        _explained(name, check_text, text)
    if references > MAX_REFERENCES:
        message = (
            f"{references} references are given; a request holds at most {MAX_REFERENCES}, which leaves "
            "memory for the requests of others: `jedi generate` takes more."
        )
        raise FieldError(message, "image")
    for name, said, count in (
        ("reference_prompt", "reference prompts", len(fields.reference_prompt)),
        ("reference_strength", "reference strengths", len(fields.reference_strength)),
    ):
        if count not in (0, 1, references):
            message = f"{count} {said} for {references} references: give none, one for all, or one each."
            raise FieldError(message, name)
    if masks not in (0, references):
        message = f"{masks} masks for {references} references: give none, or one each (white for all of one)."
        raise FieldError(message, "reference_mask")
    if fields.input_fidelity == "high" and not references:
        raise FieldError("input_fidelity is about references, and none is given.", "input_fidelity")
    if fields.output_format == "png" and fields.output_compression != 100:
        raise FieldError(
            "output_compression is for jpeg and webp; PNGs lose nothing, so it must be 100.",
            "output_compression",
        )
    if fields.stream and fields.response_format == "url":
        raise FieldError("A stream holds the pictures: response_format must be b64_json.", "stream")
    if fields.size == "auto":
        return card.size, card.size
    width, height = map(int, fields.size.split("x"))
    for side in (width, height):
        _explained("size", read, SquareSampling, {"size": side})
        if side % card.factor:
            raise FieldError(f"size is {fields.size}, but sides must be multiples of {card.factor}.", "size")
    return width, height


def check_model(name: str | None, card: ModelCard) -> None:
    """Raise UnknownModelError unless the name is the card's, or none."""
    if name not in (None, "", card.name):
        raise UnknownModelError(f"There is no model {name[:80]!r} here; this server has {card.name!r}.")


def _explained(param: str, check: Any, *arguments: Any) -> None:
    try:
        check(*arguments)
    except UsageError as error:
        raise FieldError(str(error), param) from None


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Return the reference as the pipeline would cut and scale it, so that no larger one waits in memory."""
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def to_ask(fields: Fields, references: Sequence[Image.Image | Reference], sampling: SizedSampling) -> Ask:
    """Return what the engine is asked; references, with their masks, are already `fitted`."""
    strengths = fields.reference_strength or [1.0]
    if len(strengths) == 1:
        strengths = strengths * len(references)
    read = [_counting(*pair) for pair in zip(references, strengths, strict=True)]
    seed = secrets.randbelow(2**32) if fields.seed is None else fields.seed
    return Ask(
        prompts=(fields.prompt,) * fields.n,
        seeds=tuple(range(seed, seed + fields.n)),
        references=tuple(read),
        captions=tuple(fields.reference_prompt) if references else (),
        sampling=sampling,
        output=fields.output,
    )


def _counting(reference: Image.Image | Reference, strength: float) -> Image.Image | Reference:
    """Return a reference that counts so much."""
    if strength == 1:
        return reference
    whole = reference if isinstance(reference, Reference) else Reference(reference)
    return replace(whole, strength=strength)
