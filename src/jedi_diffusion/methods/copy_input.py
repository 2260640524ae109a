"""Copy-the-input: the answer that has all of the identity and nothing of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.methods.settings import MethodSettings


class CopyInput:
    """Answers each prompt with one of the references as it is, chosen by the seed."""

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        return [references[seed % len(references)].copy() for seed in seeds]


class CopyMethod(MethodSettings):
    """Gives back a reference."""

    kind: Literal["copy"]

    def build(self, wanted: EvaluationSet, device: torch.device, store: Path) -> CopyInput:
        return CopyInput()
