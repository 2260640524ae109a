"""FreeCustom: an untrained model whose last layers let the new picture attend to re-noised references.

Letters: I images; L tokens an image; H heads; D features a head; R references and T targets of a set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName
from pydantic import Field
from torch import Tensor

from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.cache import CacheView, Pair
from jedi_diffusion.joint.positions import distance_bias
from jedi_diffusion.joint.record import AttentionWriter
from jedi_diffusion.methods.joint import Joint
from jedi_diffusion.methods.settings import ModelSettings
from jedi_diffusion.options import Coupling, NullSet, Sampling, Scale
from jedi_diffusion.sets import SetBatch

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.pipeline import JeDiPipeline

LAYERS, WEIGHT = 6, 3.0


@dataclass(frozen=True)
class FreeCustom:
    """Ding et al., CVPR 2024: multi-reference self-attention in the last `layers` layers, nothing trained.

    A target attends to itself and to the references, whose scores are raised by `weight`; references, and
    the unconditional branch, attend to themselves alone. What differs: references count whole, as if their
    masks were full; they are noised once and to each step's level; the last layers are counted from the
    output of any UNet, 6 of the 16 of Stable Diffusion 1.5. `settings` are arguments of the pipeline's call.
    Raises ModelError for a network that is no UNet.
    """

    pipeline: JeDiPipeline
    settings: dict[str, Any] = field(default_factory=dict)
    layers: int = LAYERS
    weight: float = WEIGHT

    def __post_init__(self) -> None:
        if self.pipeline.network_name != "unet":
            raise ModelError("FreeCustom needs a UNet of the Stable Diffusion family.")

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        backbone = self.pipeline.backbone
        layers = frozenset(backbone.attention_layers[-self.layers :])
        denoiser = MultiReferenceDenoiser(backbone, layers, self.weight)
        settings = {"null_set": "single", **self.settings, "coupling": "joint", "denoiser": denoiser}
        return Joint(self.pipeline, settings)(references, reference_prompts, prompts, seeds)


@dataclass(frozen=True)
class MultiReferenceDenoiser:
    """A denoiser that shows a joint UNet no reference but through attention, in the layers named.

    Raises UsageError for a cache or an attention record.
    """

    backbone: Backbone
    layers: frozenset[str]
    weight: float

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
        if coupling != "joint" or reference_cache is not None:
            raise UsageError("FreeCustom re-noises its references at every step: use coupling 'joint'.")
        if attention_record is not None:
            raise UsageError("FreeCustom records no attention; sample without an attention record.")
        reads = MultiReferenceReads(
            batch.set_sizes,
            grid=(noisy.shape[-2], noisy.shape[-1]),
            is_reference=batch.is_reference,
            layers=self.layers,
            weight=self.weight,
        )
        blind = replace(batch, mask=torch.ones_like(batch.mask), blank=None)
        return self.backbone.predict(noisy, timestep, blind, reads)


@dataclass(frozen=True)
class MultiReferenceReads(SetReads):
    """Each image reads itself alone; in `layers`, targets also read references, scores raised by `weight`."""

    layers: frozenset[str] = frozenset()
    weight: float = 0.0

    def attend(
        self,
        layer: str,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        distance_slope: float = 0.0,
        backend: AttentionBackendName | None = None,
        private: Pair | None = None,
    ) -> Tensor:
        """Return attention at a layer: (I, L, H, D) three times -> (I, L, H, D).

        backend: of what each image reads of itself; what targets read of references has a bias, which not
        every backend takes, and runs on torch's own. Raises UsageError for private keys, those of an MM-DiT.
        """
        if private is not None:
            raise UsageError("FreeCustom is a method for UNets; this model is a transformer.")
        mixed = SetReads(grid=self.grid).attend(layer, query, key, value, distance_slope, backend)
        if layer not in self.layers or self.is_reference is None:
            return mixed
        length, heads = query.shape[1:3]
        bias = query.new_zeros(heads, length, length)
        if distance_slope:
            bias = distance_bias(self._tokens(query), heads, distance_slope, query.device).to(query.dtype)
        mixed, start = mixed.clone(), 0
        for given in self.is_reference.split(self._checked_sizes(len(query))):
            rows = torch.arange(start, start + len(given), device=query.device)
            start += len(given)
            targets, references = rows[~given], rows[given]
            if not len(targets) or not len(references):
                continue
            keys, values = (_after_own(tokens, targets, references) for tokens in (key, value))
            scores = torch.cat([bias, (bias + self.weight).repeat(1, 1, len(references))], dim=-1)
            q, k, v = (each.transpose(1, 2) for each in (query[targets], keys, values))
            read = F.scaled_dot_product_attention(q, k, v, attn_mask=scores[None])
            mixed[targets] = read.transpose(1, 2).to(mixed.dtype)
        return mixed


def _after_own(tokens: Tensor, targets: Tensor, references: Tensor) -> Tensor:
    """Of tokens (I, L, H, D), each target's own and then all references': (T, (1 + R) * L, H, D)."""
    read = tokens[references].flatten(0, 1).expand(len(targets), -1, -1, -1)
    return torch.cat([tokens[targets], read], dim=1)


class FreeCustomMethod(ModelSettings, Sampling):
    """FreeCustom on any model, untrained. `layers`: how many, from the output; `weight`: of references."""

    kind: Literal["free_custom"]
    guidance: Scale = 7.5
    coupling: Literal["joint"] | None = None
    null_set: NullSet = "single"
    layers: Annotated[int, Field(ge=1, le=100)] = LAYERS
    weight: Annotated[float, Field(ge=-100, le=100)] = WEIGHT

    def build(self, wanted: EvaluationSet, device: torch.device, store: Path) -> FreeCustom:
        return FreeCustom(*self.open(device), self.layers, self.weight)
