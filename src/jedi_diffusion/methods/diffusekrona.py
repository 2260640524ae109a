"""DiffuseKronA: a Kronecker product added to each weight of the attention layers, by peft's LoKr."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from jedi_diffusion.methods.dreambooth import ATTENTION
from jedi_diffusion.methods.finetuned import FinetunedMethod
from jedi_diffusion.methods.fitting import FitSettings
from jedi_diffusion.methods.naming import NamedSubject, identifier
from jedi_diffusion.methods.parameters import adapters, need_peft

SETTINGS = FitSettings(steps=500, learning_rate=5e-4)
FULL_RANK = 2**20
"""A rank above every layer's size: LoKr then learns both factors whole, as the paper does."""


@dataclass(frozen=True)
class DiffuseKronA(NamedSubject):
    """Marjit et al., WACV 2025: W + A (x) B on queries, keys, values, outputs; captions "a [name] [class]".

    What differs: one `factor` for all layers. The sides of A are the divisors nearest to it, those of
    B the quotients; -1: both about the square root. Raises ModelError without peft.
    """

    factor: int = -1

    def __post_init__(self) -> None:
        need_peft()

    def add(self, pipeline: Any, noun: str, random: torch.Generator) -> dict[str, nn.Parameter]:
        from peft import LoKrConfig

        config = LoKrConfig(
            r=FULL_RANK, alpha=FULL_RANK, decompose_factor=self.factor, target_modules=ATTENTION
        )
        identifier(pipeline, self.name, random)
        return adapters(pipeline.unet, config, random)


class DiffuseKronAMethod(FinetunedMethod):
    """DiffuseKronA: Kronecker products on the attention layers. `factor`: near A's sides; none: roots."""

    kind: Literal["diffusekrona"]
    factor: Annotated[int | None, Field(ge=1, le=1024)] = None

    def tuning(self) -> tuple[DiffuseKronA, FitSettings]:
        return DiffuseKronA(factor=self.factor or -1), SETTINGS
