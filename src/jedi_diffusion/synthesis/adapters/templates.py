"""A prompt writer that fills templates: no model, the same words for every object."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

import numpy as np

from jedi_diffusion.errors import UsageError
from jedi_diffusion.synthesis.adapters.settings import TemplateSettings
from jedi_diffusion.synthesis.prompts import OBJECT_REQUEST, SCENE_REQUEST
from jedi_diffusion.synthesis.protocols import Failure

SCENES = (
    "on a wooden table",
    "on the grass",
    "on the beach",
    "in the snow",
    "in a forest",
    "in a kitchen",
    "on a street",
    "in front of a brick wall",
    "by a lake",
    "in a garden",
    "on a carpet",
    "at night",
)


def make_writer(settings: TemplateSettings, device: str) -> TemplatePromptWriter:
    """Return the writer as `models_config` makes models."""
    return TemplatePromptWriter(settings.scenes or SCENES)


class TemplatePromptWriter:
    """`PromptWriter` for the requests of `prompts`. Objects are told apart by a number, scenes drawn.

    scenes: phrases that follow an object's name ("on the beach").
    """

    def __init__(self, scenes: Sequence[str] = SCENES) -> None:
        if not scenes:
            raise UsageError("A prompt writer of templates needs at least one scene.")
        self.scenes = tuple(scenes)
        digest = hashlib.blake2b(json.dumps(self.scenes).encode(), digest_size=6).hexdigest()
        self.fingerprint = f"templates with {len(self.scenes)} scenes, {digest}"
        self._object, self._scene = _pattern(OBJECT_REQUEST), _pattern(SCENE_REQUEST)

    def write(self, requests: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """Answers in the form that is asked for; a Failure for a request that is not of `prompts`."""
        return [self._answer(request, seed) for request, seed in zip(requests, seeds, strict=True)]

    def _answer(self, request: str, seed: int) -> str | Failure:
        chance = np.random.default_rng(seed)
        if found := self._object.fullmatch(request):
            numbers = chance.choice(1_000_000, int(found["count"]), replace=False)
            prompts = [f"{found['name']}, example {number}" for number in numbers]
        elif found := self._scene.fullmatch(request):
            order = chance.permutation(len(self.scenes)).tolist()
            prompts = [f"a {found['name']} {self._nth(place, order)}" for place in range(int(found["count"]))]
        else:
            return Failure("templates answer no request but those of the pipeline")
        return json.dumps({"prompts": prompts})

    def _nth(self, place: int, order: Sequence[int]) -> str:
        """Return scenes in their order; from the second time on with a number, since prompts must differ."""
        turn, index = divmod(place, len(order))
        return self.scenes[order[index]] + (f", view {turn + 1}" if turn else "")


def _pattern(template: str) -> re.Pattern[str]:
    """Return what a filled template looks like, with its count and name as groups."""
    text = re.escape(template)
    for field, form in (("count", r"\d+"), ("name", r".+?")):
        text = text.replace(rf"\{{{field}\}}", f"(?P<{field}>{form})", 1)
        text = text.replace(rf"\{{{field}\}}", f"(?P={field})")
    return re.compile(re.sub(r"\\\{\w+\\\}", r".+?", text), re.DOTALL)
