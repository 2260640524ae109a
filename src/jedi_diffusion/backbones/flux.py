"""FLUX.1: [dev], [schnell], Kontext [dev] and Fill [dev].

Letters: I images in a batch; B captions; G sets of one shape; T tokens of a sequence; C, H, W a latent's
channels, height, width; a token is a patch of 2x2 latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.loaders.lora_pipeline import FluxLoraLoaderMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_flux import (
    FluxAttention,
    FluxAttnProcessor,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
    _get_qkv_projections,
)
from PIL import Image
from torch import nn

from jedi_diffusion.backbones.sequences import (
    ImageTokens,
    SequenceBackbone,
    SequenceLayout,
    SequenceProcessor,
)
from jedi_diffusion.backbones.text import TextReader, distinct_captions, encode_t5, tokenize
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.inputs import Caption, Picture, read_by, texts_of
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.process import Scheduler, resolution_shift
from jedi_diffusion.options import Coupling, Sampling
from jedi_diffusion.parts import Config, setting
from jedi_diffusion.references import OwnShape
from jedi_diffusion.sets import Conditions, SetBatch, select_rows

OWN_SIZE = 128
"""Latents along a side of the images that these models were made for: 1024 pixels."""
TEXT_TOKENS = 512
KONTEXT_PIXELS = 1024**2
"""About those of each size that Kontext was trained with."""
PATCH = 2
"""Latents along a side of a token."""


class CoupledFluxProcessor(SequenceProcessor):
    """Attention of a block of either kind; in double-stream ones text has projections of its own."""

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        layout: SequenceLayout | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Images (G, T - K, F) and text (G, K, F) -> the same; without text all tokens (G, T, F)."""
        made = _get_qkv_projections(attn, hidden_states, encoder_hidden_states)
        heads = [each.unflatten(-1, (-1, attn.head_dim)) for each in made if each is not None]
        query, key, value, *of_text = heads
        query, key = attn.norm_q(query), attn.norm_k(key)
        if encoder_hidden_states is None:
            return self._attend(query, key, value, image_rotary_emb, layout)
        text_query, text_key, text_value = of_text
        query = torch.cat([attn.norm_added_q(text_query), query], dim=1)
        key = torch.cat([attn.norm_added_k(text_key), key], dim=1)
        value = torch.cat([text_value, value], dim=1)
        mixed = self._attend(query, key, value, image_rotary_emb, layout)
        text, images = mixed.split([encoder_hidden_states.shape[1], hidden_states.shape[1]], dim=1)
        # Contiguous, as the processor it replaces makes them, for the same sums bit for bit.
        images = attn.to_out[1](attn.to_out[0](images.contiguous()))
        return images, attn.to_add_out(text.contiguous())


class FluxBackbone(SequenceBackbone):
    """A FLUX.1 transformer over sets.

    Kontext was trained with references: they are clean, at indices of their own. To the others
    (`clean_references` false) a set is one wide image at one level of noise, which they were trained on:
    references lie to the left of the first target, further targets to its right.

    The pooled text modulates all tokens of a sequence alike; it is the mean over the set's targets.
    """

    lora_targets = (
        r"transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
        r"|ff(_context)?\.net\.(0\.proj|2))"
        r"|single_transformer_blocks\.\d+\.(attn\.to_[qkv]|proj_mlp|proj_out)"
    )
    shard_units = (FluxTransformerBlock, FluxSingleTransformerBlock)
    processors: ClassVar = {FluxAttention: CoupledFluxProcessor}
    plain = (FluxAttnProcessor,)
    embedded_guidance = 3.5
    clean_references = True
    size_multiple = PATCH
    most_text_tokens = TEXT_TOKENS
    tells_captioned = True
    lora_loader = FluxLoraLoaderMixin

    @classmethod
    def couple(cls, network: nn.Module, distance_slope: float | None = None) -> None:
        config = cast(ModelMixin, network).config
        given, made = setting(config, "in_channels", int), _output_channels(config)
        if given != made and given <= 2 * made:
            raise ModelError(
                f"A FLUX.1 transformer with {given} input and {made} output channels cannot be made joint: "
                "what it reads beside the latents is not a masked image and a mask, as in FLUX.1 Fill."
            )
        super().couple(network, distance_slope)

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__(transformer)
        if self.transformer.config["in_channels"] > _output_channels(self.transformer.config):
            self.embedded_guidance = 30.0  # Fill's

    @property
    def own_shape(self) -> OwnShape | None:
        return OwnShape(KONTEXT_PIXELS, least=16, ratio=8) if self.clean_references else None

    @property
    def trained_references(self) -> int | None:
        return 1 if self.clean_references else None

    def reads_empty_captions(self, coupling: Coupling) -> bool:
        """Return whether they are cached: then they alone have pooled text, else it is the targets'."""
        return coupling == "cached"

    @property
    def latent_channels(self) -> int:
        return _output_channels(self.transformer.config) // PATCH**2

    @property
    def latent_size(self) -> tuple[int, int]:
        return OWN_SIZE, OWN_SIZE

    def fit_references(self, pictures: Sequence[Picture], size: tuple[int, int]) -> list[torch.Tensor]:
        """Return references for Kontext at the one of its trained sizes, of a megapixel, that is nearest to
        their shape; for the others in the targets' shape.
        """
        if self.own_shape is None:
            return super().fit_references(pictures, size)
        return [_at_trained_size(image) for image in self.images_in_own_shape(pictures)]

    def own_sampling(self, is_distilled: bool) -> Sampling:
        """Return 28 steps, for [schnell] 4, without guidance beside what the model was distilled to."""
        steps = 28 if self.transformer.config["guidance_embeds"] else 4
        return Sampling(
            steps=steps, guidance=1.0, image_guidance=1.0, guidance_mode="text_first", null_set="single"
        )

    def set_timesteps(
        self,
        scheduler: Scheduler,
        steps: int,
        size: tuple[int, int],
        device: torch.device,
        given: Mapping[str, list[float]] | None = None,
    ) -> None:
        """Set sigmas from 1 to 1 / steps, or those given, shifted by the number of tokens of a target."""
        own = scheduler.config.get("use_flow_sigmas", False)
        shift = resolution_shift(scheduler.config, size[0] * size[1] // PATCH**2, most=1.15)
        sigmas = None if own else (given or {}).get("sigmas", np.linspace(1.0, 1 / steps, steps))
        scheduler.set_timesteps(steps if own else None, device=device, sigmas=sigmas, mu=shift)

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor | float, batch: SetBatch, reads: SetReads
    ) -> torch.Tensor:
        patches = super().predict(F.pixel_unshuffle(noisy, PATCH), timestep, _in_patches(batch), reads)
        return F.pixel_shuffle(patches, PATCH)

    def _seen(self, noisy: torch.Tensor, batch: SetBatch) -> torch.Tensor:
        """Fill reads eq. 2's input: noisy latents, the references' (or what targets show) and the mask."""
        seen = super()._seen(noisy, batch)
        more = self.transformer.config["in_channels"] - 2 * noisy.shape[1]
        if more < 0:
            return seen
        mask = batch.mask.to(noisy).expand(-1, more, *noisy.shape[2:])
        return torch.cat([seen, batch.reference_latents.to(noisy.dtype), mask], dim=1)

    def _inputs(self, layout: SequenceLayout, batch: SetBatch) -> dict[str, torch.Tensor]:
        pooled = batch.conditions.get("pooled_text")
        if pooled is None:
            raise UsageError("This transformer (FLUX.1) needs `pooled_text` in the batch.")
        targets = [place for place, image in enumerate(layout.images) if not image.is_reference]
        readers = targets or range(len(layout.images))
        of_sets = [pooled[[rows[place] for place in readers]].mean(dim=0) for rows in layout.rows]
        return {
            "pooled_projections": torch.stack(of_sets).to(self.transformer.dtype),
            "img_ids": (image_ids if self.clean_references else side_by_side)(layout.images),
            "txt_ids": torch.zeros(layout.text_tokens * len(layout.captioned), 3, dtype=torch.int64),
        }

    def encode_text(
        self, reader: TextReader, captions: Sequence[Caption], device: torch.device
    ) -> Conditions:
        """Return T5's `text` (B, K, D), CLIP's `pooled_text` (B, P), and `captioned` (B,), false for empty
        captions. Each distinct caption runs once; the end of one that is too long is dropped, with a warning.
        K is 512 if the reader does not say.
        """
        (clip_tokenizer, t5_tokenizer), (clip, t5) = reader.tokenizers, reader.encoders
        distinct = distinct_captions(captions)
        tokens = torch.cat([tokenize(clip_tokenizer, text) for text in read_by(0, distinct)]).to(device)
        most = reader.most_tokens or TEXT_TOKENS
        made = {
            "text": encode_t5(t5_tokenizer, t5, read_by(1, distinct), most, device),
            "pooled_text": clip(tokens).pooler_output,
            "captioned": torch.tensor([any(texts_of(caption)) for caption in distinct], device=device),
        }
        return select_rows(made, [distinct.index(caption) for caption in captions])

    def example_conditions(self, count: int, text_tokens: int) -> Conditions:
        config, device = self.transformer.config, self.transformer.device
        return {
            "text": torch.zeros(count, text_tokens, config["joint_attention_dim"], device=device),
            "pooled_text": torch.zeros(count, config["pooled_projection_dim"], device=device),
        }


def _output_channels(config: Config) -> int:
    return setting(config, "out_channels", int, setting(config, "in_channels", int))


def _at_trained_size(image: Image.Image) -> torch.Tensor:
    """Return an RGB image as (3, H, W) in [-1, 1], as `FluxKontextPipeline` prepares it."""
    from diffusers.pipelines.flux import pipeline_flux_kontext as published

    ratio = image.width / image.height
    sizes = published.PREFERRED_KONTEXT_RESOLUTIONS
    _, width, height = min((abs(ratio - width / height), width, height) for width, height in sizes)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255 * 2 - 1


def _in_patches(batch: SetBatch) -> SetBatch:
    """Return the batch with a token's latents as channels of one."""
    extent = batch.conditions.get("extent")
    return replace(
        batch,
        latents=F.pixel_unshuffle(batch.latents, PATCH),
        blank=None if batch.blank is None else F.pixel_unshuffle(batch.blank, PATCH),
        conditions=batch.conditions if extent is None else batch.conditions | {"extent": extent // PATCH},
    )


def image_ids(images: Sequence[ImageTokens]) -> torch.Tensor:
    """Return the positions (index, row, column) of the tokens of images, int64 (tokens, 3), for Kontext."""
    return torch.cat([_grid(image.place, image, 0) for image in images])


def side_by_side(images: Sequence[ImageTokens]) -> torch.Tensor:
    """Return the positions of the tokens of images that lie beside each other, int64 (tokens, 3).

    References lie to the left of column 0, the first nearest to it, so that their positions, which a cache
    holds, depend on no target; targets from column 0 on to the right. Both by their index (`place`).
    """
    left, right = 0, 0
    columns = {}
    for number in sorted(range(len(images)), key=lambda number: images[number].place):
        width = images[number].width
        if images[number].is_reference:
            left -= width
        columns[number] = left if images[number].is_reference else right
        right += 0 if images[number].is_reference else width
    return torch.cat([_grid(0, image, columns[number]) for number, image in enumerate(images)])


def _grid(index: int, image: ImageTokens, column: int) -> torch.Tensor:
    rows, columns = torch.arange(image.height), torch.arange(column, column + image.width)
    return torch.cartesian_prod(torch.tensor([index]), rows, columns)
