"""Custom Diffusion: keys and values of the cross-attention, and one new word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from jedi_diffusion.methods.finetuned import FinetunedMethod
from jedi_diffusion.methods.fitting import FitSettings
from jedi_diffusion.methods.naming import new_word, rename
from jedi_diffusion.methods.parameters import copies

SETTINGS = FitSettings(steps=250, learning_rate=8e-5, batch=8, prior_pictures=200)
KEYS_AND_VALUES = r".*\.attn2\.to_[kv]\.weight"


@dataclass(frozen=True)
class CustomDiffusion:
    """Kumari et al., CVPR 2023, for one subject: captions "a [new word] [class]", and prior preservation.

    What differs: the class's pictures are made by the model (the paper's ablation) in place of found real
    ones, and references are not resized at random. like: a rare word that the new one starts as; where the
    model does not know it, the new word starts at random.
    """

    name: str = "newword"
    like: str = "ktn"

    def add(self, pipeline: Any, noun: str, random: torch.Generator) -> dict[str, nn.Parameter]:
        rows = new_word(pipeline, self.name, self.like, random)
        return rows | copies(pipeline.unet, KEYS_AND_VALUES)

    def captions(self, noun: str) -> Sequence[str]:
        return (f"a {self.name} {noun}", f"a photo of a {self.name} {noun}")

    def prompt(self, text: str, noun: str) -> str:
        return rename(text, noun, f"{self.name} {noun}")


class CustomDiffusionMethod(FinetunedMethod):
    """Custom Diffusion: keys and values of the cross-attention, and one new word."""

    kind: Literal["custom_diffusion"]

    def tuning(self) -> tuple[CustomDiffusion, FitSettings]:
        return CustomDiffusion(), SETTINGS
