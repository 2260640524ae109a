"""Finetuning-free methods that the paper compares with, each trained as JeDi is, on the same sets and loss.

Each is a `diffusion.Denoiser`: trained by `JointLoss` with coupling "cached", under which references carry no
loss, and sampled by `Conditioned`. Letters: I pictures; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from jedi_diffusion.backbones import family_of
from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.cache import CacheView
from jedi_diffusion.joint.record import AttentionWriter
from jedi_diffusion.methods.image_tokens import add_image_layers, tokens_of_sets
from jedi_diffusion.methods.joint import Joint
from jedi_diffusion.options import Coupling
from jedi_diffusion.sets import SetBatch

if TYPE_CHECKING:
    from PIL import Image


class ConcatenationBaseline(nn.Module):
    """The reference in channels beside the noisy picture (supplement, Table 7), in sets of one.

    The input is the joint model's, [noisy, mask, reference latents], with mask 0 for targets that have a
    reference. What is open in the paper: a set's first reference is read, others are not.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.single = family_of(network)(network)

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        batch: SetBatch,
        coupling: Coupling = "cached",
        reference_cache: CacheView | None = None,
        attention_record: AttentionWriter | None = None,
    ) -> Tensor:
        """Return the prediction (I, C, H, W), zero for references.

        Raises UsageError for a cache or a record.
        """
        _no_cache(reference_cache)
        _no_record(attention_record)
        given = batch.is_reference.tolist()
        first, start = [], 0
        for size in batch.set_sizes:
            rows = range(start, start + size)
            leader = next((row for row in rows if given[row]), None)
            first += [row if leader is None else leader for row in rows]
            start += size
        shown = replace(batch, latents=batch.latents[first], mask=batch.mask[first])
        return _targets_alone(self.single, noisy, timestep, shown, [not each for each in given])


class _TokenReader(nn.Module):
    """Reads a batch's references as tokens, each batch once while it is told to remember."""

    def __init__(self, unet: ModelMixin, encoder: nn.Module, text_tokens: int) -> None:
        super().__init__()
        self.denoiser, self.encoder = family_of(unet)(unet), encoder
        self.layers = add_image_layers(unet, text_tokens)
        self._seen: list[tuple[SetBatch, Tensor]] | None = None

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Meanwhile the weights do not change: a sampler shows the same batch at every step."""
        self._seen = []
        try:
            yield
        finally:
            self._seen = None

    def with_tokens(self, batch: SetBatch) -> SetBatch:
        """Return the batch with its references' tokens after the text."""
        known = next((tokens for seen, tokens in self._seen or () if seen is batch), None)
        tokens = tokens_of_sets(self.encoder, batch) if known is None else known
        if self._seen is not None:
            self._seen = [(batch, tokens)]
        return batch.conditioned({"text": torch.cat([batch.text, tokens], dim=1)})


class TokenBaseline(_TokenReader):
    """A single-image model that reads references as tokens, by decoupled cross-attention.

    With `image_tokens.PictureTokens` over CLIP it is the CLIP-encoder baseline (Table 4); with
    `image_tokens.LearnedTokens`, trained along, the learned baseline "similar to SuTI" (Table 7). SuTI (Chen
    et al., NeurIPS 2023) encodes by the UNet's own half and learns from expert models; neither is done, as
    the paper speaks of a learnable encoder only. What is open in it: how a UNet reads the embedding; here as
    IP-Adapter's does (Ye et al., 2023). text_tokens: K of the text encoder.
    """

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        batch: SetBatch,
        coupling: Coupling = "cached",
        reference_cache: CacheView | None = None,
        attention_record: AttentionWriter | None = None,
    ) -> Tensor:
        """Return the prediction (I, C, H, W), zero for references.

        Raises UsageError for a cache or a record.
        """
        _no_cache(reference_cache)
        _no_record(attention_record)
        blind = replace(self.with_tokens(batch), mask=torch.ones_like(batch.mask))
        return _targets_alone(self.denoiser, noisy, timestep, blind, (~batch.is_reference).tolist())


class JointWithTokens(_TokenReader):
    """JeDi with the references' CLIP embeddings beside (Table 4, "+ CLIP emb"): both at once.

    What is open in the paper: where the embedding enters; here by layers of its own beside the text's.
    encoder: `image_tokens.PictureTokens`; text_tokens: K of the text encoder.
    """

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        batch: SetBatch,
        coupling: Coupling = "joint",
        reference_cache: CacheView | None = None,
        attention_record: AttentionWriter | None = None,
    ) -> Tensor:
        """Return the prediction (I, C, H, W). Raises UsageError for a cache."""
        _no_cache(reference_cache)
        prediction: Tensor = self.denoiser(
            noisy, timestep, self.with_tokens(batch), coupling, attention_record=attention_record
        )
        return prediction


def _no_cache(reference_cache: CacheView | None) -> None:
    if reference_cache is not None:
        raise UsageError("This method reads references at every step; sample it with coupling 'joint'.")


def _no_record(attention_record: AttentionWriter | None) -> None:
    if attention_record is not None:
        raise UsageError("This method's targets do not attend to references; no attention can be recorded.")


def _targets_alone(
    denoiser: Backbone, noisy: Tensor, timestep: Tensor, batch: SetBatch, is_target: list[bool]
) -> Tensor:
    """Return every target as a set of one; zeros for references."""
    rows = [row for row, target in enumerate(is_target) if target]
    output = torch.zeros_like(noisy)
    if rows:
        steps = timestep[rows] if timestep.ndim else timestep
        alone = batch.select(rows, (1,) * len(rows))
        output = output.index_copy(
            0, torch.tensor(rows, device=noisy.device), denoiser(noisy[rows], steps, alone)
        )
    return output


@dataclass(frozen=True)
class Conditioned:
    """One of the denoisers above as a personalizer. pipeline: that of its UNet; settings: of its call.

    Raises UsageError for coupling "cached".
    """

    pipeline: Any
    denoiser: nn.Module
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.settings.get("coupling") not in (None, "joint"):
            raise UsageError("This method reads references at every step; sample it with coupling 'joint'.")

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        joint = Joint(self.pipeline, self.settings | {"coupling": "joint", "denoiser": self.denoiser})
        reader = self.denoiser
        with reader.remembering() if isinstance(reader, _TokenReader) else nullcontext():
            return joint(references, reference_prompts, prompts, seeds)
