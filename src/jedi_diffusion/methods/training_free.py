"""Training-free joint: a single-image model that shares attention over a set, untrained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.joint.cache import CacheView
from jedi_diffusion.joint.denoiser import Denoiser
from jedi_diffusion.joint.record import AttentionWriter
from jedi_diffusion.methods.joint import Joint
from jedi_diffusion.methods.settings import ModelSettings
from jedi_diffusion.options import Coupling, Sampling
from jedi_diffusion.sets import SetBatch

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.pipeline import JeDiPipeline


@dataclass(frozen=True)
class TrainingFreeJoint:
    """Coupled self-attention (section 3.2) and the replacement trick (section 3.3), with nothing trained.

    Any SD-family model, by `JeDiPipeline.from_single_image_model`. What differs from JeDi: the network is
    never told which pictures are given (mask 1 and zero reference latents for all), so references reach the
    target through attention to their re-noised latents only. With a trained joint model as the backbone (the
    bundled one) its coupled attention is trained, its input is still withheld. `settings` are arguments of
    the pipeline's call. Raises UsageError for coupling "cached", whose clean references an untrained network
    takes for noise.
    """

    pipeline: JeDiPipeline
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.settings.get("coupling") not in (None, "joint"):
            raise UsageError("The training-free variant needs coupling 'joint'; it re-noises its references.")

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        blind = HiddenReferences(self.pipeline.backbone)
        joint = Joint(self.pipeline, self.settings | {"coupling": "joint", "denoiser": blind})
        return joint(references, reference_prompts, prompts, seeds)


@dataclass(frozen=True)
class HiddenReferences:
    """A denoiser that shows a joint network mask 1 and zero reference latents for every image."""

    denoiser: Denoiser

    def __call__(
        self,
        noisy: Tensor,
        timestep: Tensor,
        batch: SetBatch,
        coupling: Coupling = "joint",
        reference_cache: CacheView | None = None,
        attention_record: AttentionWriter | None = None,
    ) -> Tensor:
        """Return the prediction (I, C, H, W)."""
        blind = replace(batch, mask=torch.ones_like(batch.mask), blank=None)
        return self.denoiser(noisy, timestep, blind, coupling, reference_cache, attention_record)


class TrainingFreeMethod(ModelSettings, Sampling):
    """Coupled attention and replacement on any model, untrained, its input withheld."""

    kind: Literal["training_free"]
    coupling: Literal["joint"] | None = None

    def build(self, wanted: EvaluationSet, device: torch.device, store: Path) -> TrainingFreeJoint:
        return TrainingFreeJoint(*self.open(device))
