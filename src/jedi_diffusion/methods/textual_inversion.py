"""Textual Inversion: one new word is learned, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from jedi_diffusion.methods.finetuned import FinetunedMethod
from jedi_diffusion.methods.fitting import FitSettings
from jedi_diffusion.methods.naming import new_word, rename

SETTINGS = FitSettings(steps=3000, learning_rate=5e-3, batch=4, weight_decay=0.0)
CAPTIONS = (
    "a photo of a {}",
    "a picture of a {}",
    "a close photo of a {}",
    "a bright photo of the {}",
    "a dark photo of the {}",
    "a photo of one {}",
    "a good photo of a {}",
    "the {}",
)


@dataclass(frozen=True)
class TextualInversion:
    """Gal et al., ICLR 2023: the embedding of a word that stands in the class's place and starts as it.

    What differs: fewer captions, written here; one row for each text encoder, so SDXL has two.
    """

    name: str = "newword"

    def add(self, pipeline: Any, noun: str, random: torch.Generator) -> dict[str, nn.Parameter]:
        return new_word(pipeline, self.name, noun, random)

    def captions(self, noun: str) -> Sequence[str]:
        return tuple(each.format(self.name) for each in CAPTIONS)

    def prompt(self, text: str, noun: str) -> str:
        return rename(text, noun, self.name)


class TextualInversionMethod(FinetunedMethod):
    """Textual Inversion: one new word."""

    kind: Literal["textual_inversion"]

    def tuning(self) -> tuple[TextualInversion, FitSettings]:
        return TextualInversion(), SETTINGS
