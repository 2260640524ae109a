"""Text-only: the same model without the references, all of the prompt and nothing of the identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.methods.joint import Joint
from jedi_diffusion.methods.settings import ModelSettings
from jedi_diffusion.options import Sampling

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.pipeline import JeDiPipeline


@dataclass(frozen=True)
class TextOnly:
    """A joint model with each prompt as a set of one. `settings` are arguments of the pipeline's call."""

    pipeline: JeDiPipeline
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        return Joint(self.pipeline, self.settings)([], [], prompts, seeds)


class TextOnlyMethod(ModelSettings, Sampling):
    """The same model without the references."""

    kind: Literal["text_only"]

    def build(self, wanted: EvaluationSet, device: torch.device, store: Path) -> TextOnly:
        return TextOnly(*self.open(device))
