"""DreamBooth: the network finetuned on the references, with prior preservation; or LoRA in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from jedi_diffusion.methods.finetuned import FinetunedMethod
from jedi_diffusion.methods.fitting import FitSettings
from jedi_diffusion.methods.naming import NamedSubject, identifier
from jedi_diffusion.methods.parameters import adapters, copies, need_peft

FULL = FitSettings(steps=800, learning_rate=5e-6, prior_pictures=100)
LORA = FitSettings(steps=800, learning_rate=1e-4, prior_pictures=100)
ATTENTION = r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"


@dataclass(frozen=True)
class DreamBooth(NamedSubject):
    """Ruiz et al., CVPR 2023: every weight of the UNet, captions "a [name] [class]", and prior preservation.

    What differs: the backbone is a latent model in place of Imagen, so the text encoder stays as it is; prior
    pictures are kept as latents, never decoded. With a `rank`, low-rank adapters (Hu et al., ICLR 2022) on
    all attention layers are fitted instead, the widespread cheap form. name: a word that means little to the
    model. Raises ModelError for LoRA without peft.
    """

    rank: int | None = None

    def __post_init__(self) -> None:
        if self.rank is not None:
            need_peft()

    def add(self, pipeline: Any, noun: str, random: torch.Generator) -> dict[str, nn.Parameter]:
        identifier(pipeline, self.name, random)
        if self.rank is None:
            return copies(pipeline.unet, ".*")
        from peft import LoraConfig

        config = LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=ATTENTION)
        return adapters(pipeline.unet, config, random)


class DreamBoothMethod(FinetunedMethod):
    """DreamBooth with prior preservation: all weights, or LoRA of a rank."""

    kind: Literal["dreambooth"]
    rank: Annotated[int | None, Field(ge=1, le=1024)] = None

    def tuning(self) -> tuple[DreamBooth, FitSettings]:
        return DreamBooth(rank=self.rank), FULL if self.rank is None else LORA
