"""The joint model itself as a personalizer: JeDi, or what any pipeline of its kind makes of references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.methods.settings import ModelSettings
from jedi_diffusion.options import Sampling
from jedi_diffusion.randomness import seeded_generator

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.pipeline import JeDiPipeline


@dataclass(frozen=True)
class Joint:
    """`settings` are arguments of the pipeline's call: steps, guidance, coupling ... Without references, the
    text alone counts."""

    pipeline: JeDiPipeline
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        out: Any = self.pipeline(
            prompt=list(prompts),
            references=list(references),
            reference_prompts=list(reference_prompts),
            generator=[seeded_generator(seed) for seed in seeds],
            **self.settings,
        )
        return out.images


class ModelMethod(ModelSettings, Sampling):
    """A joint model; a single-image one runs untrained (the training-free variant)."""

    kind: Literal["model"]

    def build(self, wanted: EvaluationSet, device: torch.device, store: Path) -> Joint:
        return Joint(*self.open(device))
