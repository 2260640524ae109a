"""FLUX.2: [klein] of every size, distilled or not, with or without a key-value cache, and [dev].

Letters: I images in a batch; G sets of one shape; T tokens of a sequence; C, H, W a latent's channels,
height, width, where a latent is a 2x2 patch of the autoencoder's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.transformers.transformer_flux2 import (
    Flux2Attention,
    Flux2AttnProcessor,
    Flux2KVAttnProcessor,
    Flux2KVParallelSelfAttnProcessor,
    Flux2ParallelSelfAttention,
    Flux2ParallelSelfAttnProcessor,
    Flux2SingleTransformerBlock,
    Flux2TransformerBlock,
    _get_qkv_projections,
)
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from PIL import Image

from jedi_diffusion.backbones.sequences import (
    ImageTokens,
    SequenceBackbone,
    SequenceLayout,
    SequenceProcessor,
)
from jedi_diffusion.backbones.text import TextReader, distinct_captions
from jedi_diffusion.inputs import SHOWN, TOKENIZING, Caption, Picture, read_by
from jedi_diffusion.joint.process import Scheduler
from jedi_diffusion.options import Sampling
from jedi_diffusion.parts import Autoencoder, setting
from jedi_diffusion.pictures import within_pixels
from jedi_diffusion.references import OwnShape
from jedi_diffusion.sets import Conditions, SetBatch, select_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

OWN_SIZE = 64
"""Latents along a side of the images that these models were made for: 1024 pixels."""
STRIDE = 16
"""Pixels a latent."""
MAX_PIXELS = 1024**2
"""Of references: larger ones are made smaller."""
TEXT_TOKENS = 512
TEXT_LAYERS = {"mistral3": (10, 20, 30)}
"""Hidden states of a text encoder, by the type that its configuration names, that are joined to the text: of
[dev]'s Mistral 3."""
QWEN_LAYERS = (9, 18, 27)
"""The same of Qwen3, which [klein] reads."""
INDEX_STEP = 10
"""Reference k lies at T = 10 k of the position axes (T, H, W, L), the target at 0, text along L."""
EMBEDDED_GUIDANCE = 4.0
"""What a model that takes guidance as an input ([dev]) is told, where the batch has no `guidance` (I,)."""

_PLAIN_PROCESSORS = (
    Flux2AttnProcessor,
    Flux2KVAttnProcessor,
    Flux2ParallelSelfAttnProcessor,
    Flux2KVParallelSelfAttnProcessor,
)


class CoupledDoubleProcessor(SequenceProcessor):
    """Attention of a double-stream block, in which text and images have projections of their own."""

    def __call__(
        self,
        attn: Flux2Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        layout: SequenceLayout | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (G, T - K, F) and text (G, K, F) -> the same."""
        made = _get_qkv_projections(attn, hidden_states, encoder_hidden_states)
        query, key, value, *of_text = (each.unflatten(-1, (attn.heads, attn.head_dim)) for each in made)
        text_query, text_key, text_value = of_text
        query = torch.cat([attn.norm_added_q(text_query), attn.norm_q(query)], dim=1)
        key = torch.cat([attn.norm_added_k(text_key), attn.norm_k(key)], dim=1)
        value = torch.cat([text_value, value], dim=1)
        mixed = self._attend(query, key, value, image_rotary_emb, layout)
        text, images = mixed.split([encoder_hidden_states.shape[1], hidden_states.shape[1]], dim=1)
        return attn.to_out[1](attn.to_out[0](images)), attn.to_add_out(text)


class CoupledSingleProcessor(SequenceProcessor):
    """Attention of a single-stream block, whose projections also hold those of its MLP."""

    def __call__(
        self,
        attn: Flux2ParallelSelfAttention,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        layout: SequenceLayout | None = None,
    ) -> torch.Tensor:
        """(G, T, F) -> (G, T, F), text first."""
        projected = attn.to_qkv_mlp_proj(hidden_states)
        mixing = 3 * attn.inner_dim
        joined, of_mlp = projected.split([mixing, projected.shape[-1] - mixing], dim=-1)
        query, key, value = (
            each.unflatten(-1, (attn.heads, attn.head_dim)) for each in joined.chunk(3, dim=-1)
        )
        mixed = self._attend(attn.norm_q(query), attn.norm_k(key), value, image_rotary_emb, layout)
        output: torch.Tensor = attn.to_out(torch.cat([mixed, attn.mlp_act_fn(of_mlp)], dim=-1))
        return output


class Flux2Backbone(SequenceBackbone):
    """A FLUX.2 transformer over sets: [klein] was trained with clean references at the targets' time, its
    9B-KV variant with cached ones at time 0.
    """

    lora_targets = (
        r"transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
        r"|ff(_context)?\.linear_(in|out))"
        r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
    )
    shard_units = (Flux2TransformerBlock, Flux2SingleTransformerBlock)
    clean_references = True
    lora_loader = Flux2LoraLoaderMixin
    text_tokens = TEXT_TOKENS
    most_text_tokens = TEXT_TOKENS
    tells_captioned = True

    processors: ClassVar = {
        Flux2Attention: CoupledDoubleProcessor,
        Flux2ParallelSelfAttention: CoupledSingleProcessor,
    }
    plain = _PLAIN_PROCESSORS
    embedded_guidance = EMBEDDED_GUIDANCE

    @property
    def own_shape(self) -> OwnShape:
        return OwnShape(MAX_PIXELS, least=64, ratio=8)

    @property
    def trained_references(self) -> int:
        """Return 4, for [dev] the 6 that its publisher recommends at most."""
        return 4 if self.own_guidance is None else 6

    @property
    def latent_channels(self) -> int:
        channels: int = self.transformer.config["in_channels"]
        return channels

    def _inputs(self, layout: SequenceLayout, batch: SetBatch) -> dict[str, torch.Tensor]:
        return {
            "img_ids": image_ids(layout.images),
            "txt_ids": text_ids(layout.text_tokens).repeat(len(layout.captioned), 1),
        }

    @property
    def latent_size(self) -> tuple[int, int]:
        return OWN_SIZE, OWN_SIZE

    def encode_text(
        self, reader: TextReader, captions: Sequence[Caption], device: torch.device
    ) -> Conditions:
        """Return `text` (B, K, D), and `captioned` (B,), false for empty captions.

        A caption is what a user says to Qwen3, or to Mistral 3 after a published instruction; each distinct
        one runs once. The model reads what pads it too. What exceeds K tokens, if the reader does not say 512
        or the tokenizer's length, is dropped, with a warning.
        """
        (tokenizer,), (encoder,) = reader.tokenizers, reader.encoders
        distinct = read_by(0, distinct_captions(captions))
        layers = TEXT_LAYERS.get(encoder.config.model_type, QWEN_LAYERS)
        said = [_as_chat(tokenizer, caption, layers is QWEN_LAYERS) for caption in distinct]
        most = reader.most_tokens or min(TEXT_TOKENS, tokenizer.model_max_length)
        padded = {"padding": "max_length", "truncation": True, "max_length": most}
        with TOKENIZING:
            lengths = [len(numbers) for numbers in tokenizer(said, add_special_tokens=False).input_ids]
            tokens = tokenizer(said, return_tensors="pt", add_special_tokens=False, **padded).to(device)
        for caption, length in zip(distinct, lengths, strict=True):
            if length > most:
                logger.warning(
                    "The prompt exceeds the %d tokens that the model reads by %d; its end is dropped: %r.",
                    most,
                    length - most,
                    caption[-SHOWN:],
                )
        states = encoder(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        made = {
            "text": torch.cat([states[layer] for layer in layers], dim=-1),
            "captioned": torch.tensor([bool(caption) for caption in distinct], device=device),
        }
        return select_rows(made, [distinct.index(caption) for caption in read_by(0, captions)])

    def fit_references(self, pictures: Sequence[Picture], size: tuple[int, int]) -> list[torch.Tensor]:
        """Return references in their own shape, of at most MAX_PIXELS, cut to whole latents.

        Raises UsageError also for a side below 64 pixels or longer than 8 times the other.
        """
        return [_fitted(image) for image in self.images_in_own_shape(pictures)]

    def own_sampling(self, is_distilled: bool) -> Sampling:
        """Return 4 steps without guidance for a distilled model, else 50 with guidance on the text, which one
        does without that takes guidance as an input.

        Both are eq. 4 with scale 1 on the references, which costs nothing: in the order in which its branches
        are ones that the model knows.
        """
        if is_distilled:
            return Sampling(
                steps=4, guidance=1.0, image_guidance=1.0, guidance_mode="text_first", null_set="single"
            )
        if self.own_guidance is not None:
            return Sampling(
                steps=50, guidance=1.0, image_guidance=1.0, guidance_mode="text_first", null_set="single"
            )
        return Sampling(
            steps=50, guidance=4.0, image_guidance=1.0, guidance_mode="image_first", null_set="single"
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
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        own = np.linspace(1.0, 1 / steps, steps)
        sigmas = None if scheduler.config.get("use_flow_sigmas") else (given or {}).get("sigmas", own)
        mu = compute_empirical_mu(size[0] * size[1], steps)
        scheduler.set_timesteps(None if sigmas is not None else steps, device=device, sigmas=sigmas, mu=mu)

    def stride(self, vae: Autoencoder) -> int:
        return 2 * super().stride(vae)

    def encode_images(self, vae: Autoencoder, pixels: torch.Tensor) -> torch.Tensor:
        """Return images (B, 3, H, W) in [-1, 1] as patches of latents, normalized, in float32."""
        latents = vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float()
        mean, deviation = _statistics(vae, latents.device)
        return (F.pixel_unshuffle(latents, 2) - mean) / deviation

    def decode_latents(self, vae: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
        mean, deviation = _statistics(vae, latents.device)
        whole = F.pixel_shuffle(latents * deviation + mean, 2)
        return vae.decode(whole.to(vae.dtype)).sample.float()

    def example_conditions(self, count: int, text_tokens: int) -> Conditions:
        width = self.transformer.config["joint_attention_dim"]
        return {"text": torch.zeros(count, text_tokens, width, device=self.transformer.device)}


def _as_chat(tokenizer: PreTrainedTokenizerBase, caption: str, is_qwen: bool) -> str:
    """Return a caption as a text encoder is told it, with the marks of its chats."""
    if is_qwen:
        to_qwen = [{"role": "user", "content": caption}]
        return str(
            tokenizer.apply_chat_template(
                to_qwen, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )
    texts = {"system": SYSTEM_MESSAGE, "user": caption.replace("[IMG]", "")}
    said = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts.items()]
    whole = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=False)  # type: ignore[arg-type]
    return str(whole)


def _fitted(image: Image.Image) -> torch.Tensor:
    """Return an RGB image as (3, H, W) in [-1, 1], as `Flux2KleinPipeline` prepares it."""
    image = within_pixels(image, MAX_PIXELS)
    width, height = image.size
    columns, rows = width // STRIDE * STRIDE, height // STRIDE * STRIDE
    left, top = (width - columns) // 2, (height - rows) // 2
    pixels = torch.from_numpy(np.array(image.crop((left, top, left + columns, top + rows))))
    return pixels.permute(2, 0, 1) / 255 * 2 - 1


def _statistics(vae: Autoencoder, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of an autoencoder's patches of latents, (1, C, 1, 1) float32.

    device: that of the latents; the autoencoder may wait elsewhere until it is called. An autoencoder of
    another family, without statistics of patches, has one mean and deviation for all channels.
    """
    if not hasattr(vae, "bn"):
        shift = setting(vae.config, "shift_factor", float, 0.0)
        scale = setting(vae.config, "scaling_factor", float)
        mean, deviation = torch.tensor([shift, 1 / scale], device=device).view(2, 1, 1, 1, 1)
        return mean, deviation
    norm = cast(AutoencoderKLFlux2, vae).bn
    given = (cast(torch.Tensor, each) for each in (norm.running_mean, norm.running_var))
    mean, variance = (each.to(device, torch.float32) for each in given)
    deviation = (variance + setting(vae.config, "batch_norm_eps", float)).sqrt()
    return mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)


def image_ids(images: Sequence[ImageTokens]) -> torch.Tensor:
    """Return the positions (T, H, W, L) of the tokens of images, int64 (tokens, 4)."""
    return torch.cat(
        [
            torch.cartesian_prod(
                torch.tensor([INDEX_STEP * image.place]),
                torch.arange(image.height),
                torch.arange(image.width),
                torch.zeros(1, dtype=torch.int64),
            )
            for image in images
        ]
    )


def text_ids(tokens: int) -> torch.Tensor:
    """Return the positions of a caption's tokens, int64 (tokens, 4)."""
    return F.pad(torch.arange(tokens)[:, None], (3, 0))
