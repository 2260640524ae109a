"""Subjects of the toybox that no model was trained on, for visitors without a photo at hand."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from jedi_diffusion.app.session import Example

SEEDS = range(8)
"""Subjects that every visitor is offered."""


class ToyboxExamples:
    """Held-out subjects, rendered in a scene of their own; `size`: side of their pictures in pixels."""

    def __init__(self, size: int) -> None:
        self.size = size

    def fixed(self) -> Sequence[Example]:
        return self._render(SEEDS)

    def surprise(self, seed: int) -> Example:
        return self._render([SEEDS.stop + seed])[0]

    def _render(self, seeds: Sequence[int]) -> list[Example]:
        from jedi_toybox import world

        subjects = [world.sample_subject(seed, split="held_out") for seed in seeds]
        specs = [world.sample_picture(subject, 0, style="", attribute="") for subject in subjects]
        rendered = world.render(specs, self.size).pictures.permute(0, 2, 3, 1).contiguous().numpy()
        pairs = zip(subjects, rendered, strict=True)
        return [Example(subject.phrase, Image.fromarray(picture)) for subject, picture in pairs]
