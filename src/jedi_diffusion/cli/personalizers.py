"""A loaded pipeline as a Personalizer, with the settings of a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.pipeline import JeDiPipeline


@dataclass(frozen=True)
class PipelinePersonalizer:
    """`settings` are arguments of the pipeline's call: steps, guidance, coupling ..."""

    pipeline: JeDiPipeline
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        import torch

        out: Any = self.pipeline(
            prompt=list(prompts),
            references=list(references),
            reference_prompts=list(reference_prompts),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            **self.settings,
        )
        return out.images
