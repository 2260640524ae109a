"""BLIP-Diffusion, through diffusers, with the user's own weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from diffusers.utils.pil_utils import numpy_to_pil

from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.methods.naming import noun_of, rename
from jedi_diffusion.methods.settings import StockSettings
from jedi_diffusion.randomness import seeded_generator

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class BlipDiffusion:
    """Li et al., NeurIPS 2023: a multimodal encoder's tokens of the subject among those of the prompt.

    What differs: nothing for one reference; model, prompt repetition and sampling are those of diffusers. The
    tokens of several references are averaged, as the paper does before it finetunes, which is not done here.
    pipeline: of `blip_pipeline.load_blip_diffusion`; settings: arguments of its call.
    """

    pipeline: Any
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        noun = noun_of(reference_prompts[0])
        out: Any = self.pipeline(
            # diffusers writes "a TARGET PROMPT": the target is the whole prompt, its class among it.
            prompt=[""] * len(prompts),
            reference_image=list(references),
            source_subject_category=[noun] * len(prompts),
            target_subject_category=[noun_of(rename(text, noun, noun)) for text in prompts],
            generator=[seeded_generator(seed) for seed in seeds],
            output_type="pt",  # its own way to pictures fails for bfloat16
            **self.settings,
        )
        made: list[Image.Image] = numpy_to_pil(out.images.float().permute(0, 2, 3, 1).cpu().numpy())
        return made


class BlipDiffusionMethod(StockSettings):
    """BLIP-Diffusion. `model`: its diffusers folder; `vocabulary`: the tokenizer of BERT, uncased."""

    kind: Literal["blip_diffusion"]
    vocabulary: str = "google-bert/bert-base-uncased"

    def load(self, dtype: torch.dtype) -> Any:
        from jedi_diffusion.methods.blip_pipeline import (
            load_blip_diffusion,
        )  # what diffusers calls deprecated

        return load_blip_diffusion(self.model, self.vocabulary, dtype)

    def build(self, wanted: EvaluationSet, device: torch.device, store: Path) -> BlipDiffusion:
        return BlipDiffusion(*self.open(device))
