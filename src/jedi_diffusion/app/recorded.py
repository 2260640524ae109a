"""Settings of earlier pictures, from a file that a visitor of the page gives: a settings.json, or a PNG that
carries them.

Only the file itself is read. What it names, such as its references, is never opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from jedi_diffusion.app.fields import MAX_PICTURES
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.app.session import COUNTS, Controls, check_texts
from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import decode_text, lines_of
from jedi_diffusion.options import MAX_PICTURES as MOST_PICTURES
from jedi_diffusion.options import Between, Seed, SizedSampling, fault
from jedi_diffusion.pictures import MAX_PARAMETERS, PNG_START, read_parameters

EXACT = 2**53
"""Whole numbers below this are exact in a browser."""
NOT_ASKED = {
    "model",
    "scheduler",
    "size",
    "reference",
    "out",
    "batch",
    "device",
    "dtype",
    "record_names",
    "watermark",
}
"""Options that stand elsewhere in the settings too, or that decide nothing that is seen."""


class Options(SizedSampling):
    """The options in settings that count here; defaults are those of `jedi generate`."""

    model_config = ConfigDict(extra="ignore")

    prompt: tuple[str, ...] = ()
    reference_prompt: tuple[str, ...] = ()
    images_per_prompt: Annotated[int, Between(1, MOST_PICTURES)] = 1
    seed: Seed | None = None
    joint_targets: bool = False
    fit: str = "crop"
    enlarge: int | None = None
    choose_best: int = 1
    judge: str | None = None
    attention_map: str | None = None


class RecordedModel(BaseModel):
    """Which weights, and which sampler, made the pictures."""

    name: str
    fingerprint: str
    scheduler: str


class Chosen(BaseModel):
    """Which of several draws a picture is."""

    seed: int


class Recorded(BaseModel):
    """A settings.json, or the parameters of one picture, which have its prompt and seed."""

    options: dict[str, Any]
    model: RecordedModel
    references: list[Any] = []
    prompt: str | None = None
    seed: int | None = None
    chosen: Chosen | None = None


@dataclass(frozen=True)
class Taken:
    """The controls as settings have them, and in a few sentences what they could not take."""

    controls: Controls
    remarks: tuple[str, ...]


def take_settings(path: Path, card: ModelCard) -> Taken:
    """Read the settings in a file. Raises UsageError, PictureError."""
    found = _read(path)
    rows = found if isinstance(found, list) and found else [found]
    try:
        recorded = Recorded.model_validate(rows[0])
        values = dict(recorded.options)
        if recorded.prompt is not None:  # of one picture
            seed = recorded.seed if recorded.chosen is None else recorded.chosen.seed
            values |= {"prompt": [recorded.prompt], "seed": seed, "images_per_prompt": 1, "choose_best": 1}
        side = values.get("size") or card.size
        options = Options.model_validate({"height": side, "width": side, **values})
    except ValidationError as error:
        raise UsageError(
            f"{path.name} does not hold settings of pictures made here: {_shown(fault(error))}."
        ) from error
    controls = _controls(options)
    check_texts(controls)
    remarks = [f"Of its {len(rows)} pictures the first counts."] if len(rows) > 1 else []
    left_out = [*_not_of_the_page(options, recorded, card), *_unknown(values)]
    if left_out:
        remarks.append(f"What this page does not have is left out: {'; '.join(left_out)}.")
    return Taken(controls, (*remarks, *_to_do(recorded, card)))


def _read(path: Path) -> Any:
    """Return the JSON of a file. Raises UsageError, PictureError."""
    with path.open("rb") as file:
        data = file.read(MAX_PARAMETERS + 1)
    if data.startswith(PNG_START):
        found = read_parameters(path, path.name)
        if found is None:
            raise UsageError(f"{path.name} is a picture without settings: none, or not made here.")
        return found
    if len(data) > MAX_PARAMETERS:
        raise UsageError(f"{path.name} has more than the {MAX_PARAMETERS} bytes that settings may have.")
    try:
        return json.loads(decode_text(data, path.name, UsageError))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} is neither a settings.json nor a PNG with settings.") from error


def _controls(options: Options) -> Controls:
    return Controls(
        what=" ".join(lines_of(next(iter(options.reference_prompt), ""))),
        prompts="\n".join(" ".join(lines_of(prompt)) for prompt in options.prompt[:MAX_PICTURES]),
        count=min(options.images_per_prompt, COUNTS[-1]),
        seed=None if (options.seed or 0) >= EXACT else options.seed,
        by_hand=True,
        **options.sampling(),
    )


def _not_of_the_page(options: Options, recorded: Recorded, card: ModelCard) -> Iterator[str]:
    """Yield what decides how the pictures look and has no control here, each in a few words."""
    if (options.width, options.height) != (card.size, card.size):
        yield f"the size {options.width}x{options.height} (here {card.size}x{card.size})"
    if len(options.prompt) > MAX_PICTURES:
        yield f"all but the first {MAX_PICTURES} of {len(options.prompt)} prompts"
    if options.images_per_prompt > COUNTS[-1]:
        yield f"{options.images_per_prompt} pictures of each prompt (here up to {COUNTS[-1]})"
    if len(set(options.reference_prompt)) > 1:
        yield "another description for each photo (here the first for all)"
    if options.seed is not None and options.seed >= EXACT:
        yield f"the seed {options.seed}, which browsers cannot hold"
    if options.joint_targets:
        yield "joint_targets"
    if recorded.model.scheduler != card.scheduler:
        yield f"the sampler {_shown(recorded.model.scheduler)} (here {card.scheduler})"
    for name, value, usual in (
        ("fit", options.fit, "crop"),
        ("enlarge", options.enlarge, None),
        ("choose_best", options.choose_best, 1),
        ("attention_map", options.attention_map, None),
    ):
        if value != usual:
            yield f"{name} {_shown(str(value))}"


def _unknown(values: dict[str, Any]) -> list[str]:
    """Return names of options that nobody here knows, a few of them."""
    known = {*Options.model_fields, *NOT_ASKED}
    return [_shown(name) for name in sorted(values.keys() - known)[:8]]


def _to_do(recorded: Recorded, card: ModelCard) -> Iterator[str]:
    """Yield what a visitor has to know to make the pictures again."""
    name = _shown(recorded.model.name)
    if name != card.name:
        yield f"They were made by the model {name}, not by {card.name}."
    elif recorded.model.fingerprint != card.fingerprint:
        yield f"They were made by other weights of {name}."
    if len(recorded.references) == 1:
        yield "The file does not hold its photo: add it yourself."
    elif recorded.references:
        yield f"The file does not hold its {len(recorded.references)} photos: add them yourself."


def _shown(text: str) -> str:
    """Return a text of the file as it may stand in a sentence."""
    return "".join(letter for letter in text if letter.isprintable())[:160]
