"""Stable Diffusion 3 and 3.5 (medium with its second, image-only attention; large).

Letters: I images in a batch; B captions; L tokens of an image, patches of 2x2 latents; K tokens of a caption;
F features of a token; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from diffusers.loaders.lora_pipeline import SD3LoraLoaderMixin
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_processor import (
    Attention,
    AttentionProcessor,
    FusedJointAttnProcessor2_0,
    JointAttnProcessor2_0,
)
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import nn

from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.backbones.text import TextReader, distinct_captions, encode_t5, tokenize
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.inputs import Caption, read_by
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.process import Scheduler, resolution_shift
from jedi_diffusion.options import Sampling
from jedi_diffusion.sets import Conditions, SetBatch, select_rows

TEXT_TOKENS, MOST_TEXT_TOKENS = 256, 512
"""Of T5, after CLIP's 77."""
TIMESTEPS = 1000
"""Times 0..1 of the flow are 0..1000 to the network."""

_PLAIN_PROCESSORS = (JointAttnProcessor2_0, FusedJointAttnProcessor2_0)


class CoupledJointProcessor:
    """Attention that couples the images of a set; a caption sees them all, but only its own image sees it.

    Without `reads` every image is a set of its own, as with the processor that it replaces.
    """

    def __init__(self, layer: str, backend: AttentionBackendName | None = None) -> None:
        self.layer = layer
        self._attention_backend = backend  # `set_attention_backend` of diffusers sets it, by this name

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        reads: SetReads | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Images (I, L, F) and captions (I, K, F) -> the same; without captions images alone."""
        query, key, value = (
            layer(hidden_states).unflatten(-1, (attn.heads, -1))
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = _normed(attn.norm_q, query), _normed(attn.norm_k, key)
        private = None
        if encoder_hidden_states is not None:
            text_query, text_key, text_value = (
                layer(encoder_hidden_states).unflatten(-1, (attn.heads, -1))
                for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            )
            query = torch.cat([query, _normed(attn.norm_added_q, text_query)], dim=1)
            private = (_normed(attn.norm_added_k, text_key), text_value)
        mixed = (reads or SetReads()).attend(
            self.layer, query, key, value, backend=self._attention_backend, private=private
        )
        of_images, text = mixed.flatten(2).to(query.dtype).tensor_split([hidden_states.shape[1]], dim=1)
        images: torch.Tensor = attn.to_out[1](attn.to_out[0](of_images))
        if encoder_hidden_states is None:
            return images
        return images, text if attn.context_pre_only else attn.to_add_out(text)


class SD3Backbone(Backbone):
    """An SD3 transformer over sets, each image with its own caption, all at the same positions.

    References are noised to the targets' level (the replacement trick): no published model was trained with
    clean ones, nor with cached ones at time 0, which therefore take training.
    """

    lora_targets = (
        r"transformer_blocks\.\d+\.(attn2?\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
        r"|ff(_context)?\.net\.(0\.proj|2))"
    )
    shard_units = (JointTransformerBlock,)
    size_multiple = 2
    most_text_tokens = MOST_TEXT_TOKENS
    lora_loader = SD3LoraLoaderMixin
    cache_untrained = True

    def __init__(self, transformer: SD3Transformer2DModel) -> None:
        super().__init__()
        if not self.is_coupled(transformer):
            raise ModelError("The transformer is not coupled; call SD3Backbone.couple(transformer) first.")
        self.transformer = transformer

    @classmethod
    def make_joint(cls, network: nn.Module) -> None:
        """Couple the attention; the model is then a training-free one until it is trained on sets."""
        cls.couple(network)

    @classmethod
    def couple(cls, network: nn.Module, distance_slope: float | None = None) -> None:
        if distance_slope:
            raise ModelError("An SD3 transformer knows positions itself; distance_slope must be 0.")
        processors: dict[str, CoupledJointProcessor] = {}
        for name, attn in _attention_layers(network):
            stock = attn.processor
            if not isinstance(stock, (*_PLAIN_PROCESSORS, CoupledJointProcessor)):
                raise ModelError(
                    f"Attention layer {name} runs {type(stock).__name__}, which is not plain attention; "
                    "unload what installed it before the transformer is coupled."
                )
            backend = getattr(stock, "_attention_backend", None)
            processors[f"{name}.processor"] = CoupledJointProcessor(name, backend)
        made = cast("dict[str, AttentionProcessor]", processors)
        cast(SD3Transformer2DModel, network).set_attn_processor(made)

    @classmethod
    def is_coupled(cls, network: nn.Module) -> bool:
        layers = [attn for _, attn in _attention_layers(network)]
        return bool(layers) and all(isinstance(attn.processor, CoupledJointProcessor) for attn in layers)

    @property
    def network(self) -> SD3Transformer2DModel:
        return self.transformer

    @property
    def attention_layers(self) -> list[str]:
        return [name for name, _ in _attention_layers(self.transformer)]

    @property
    def latent_channels(self) -> int:
        channels: int = self.transformer.config["in_channels"]
        return channels

    def own_sampling(self, is_distilled: bool) -> Sampling:
        """Return 28 steps with guidance 7 on the text, and a null branch without references."""
        return Sampling(
            steps=28, guidance=7.0, image_guidance=1.0, guidance_mode="image_first", null_set="single"
        )

    def set_timesteps(
        self,
        scheduler: Scheduler,
        steps: int,
        size: tuple[int, int],
        device: torch.device,
        given: Mapping[str, list[float]] | None = None,
    ) -> None:
        """Set the scheduler's own steps, shifted by the number of tokens of a target if it asks for that."""
        tokens = size[0] * size[1] // self.transformer.config["patch_size"] ** 2
        shift = resolution_shift(scheduler.config, tokens, most=1.16)
        shifted = {"mu": shift} if scheduler.config.get("use_dynamic_shifting") else {}
        scheduler.set_timesteps(None if given else steps, device=device, **shifted, **(given or {}))

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor | float, batch: SetBatch, reads: SetReads
    ) -> torch.Tensor:
        """Raise UsageError also for images of several sizes, or larger than the model's positions reach."""
        pooled = batch.conditions.get("pooled_text")
        if pooled is None:
            raise UsageError("This transformer (SD3) needs `pooled_text` in the batch.")
        height, width = noisy.shape[-2:]
        if set(batch.extents) != {(height, width)}:
            raise UsageError("An SD3 model reads images of one size: cut references to the targets' shape.")
        most = self.transformer.config["pos_embed_max_size"] * self.transformer.config["patch_size"]
        if max(height, width) > most:
            raise UsageError(f"Images have {height} x {width} latents, but this model reads {most} at most.")
        dtype = self.transformer.dtype
        times = torch.as_tensor(timestep, dtype=torch.float32, device=noisy.device).expand(len(noisy))
        prediction: torch.Tensor = self.transformer(
            hidden_states=noisy.to(dtype),
            encoder_hidden_states=batch.text.to(dtype),
            pooled_projections=pooled.to(dtype),
            timestep=times * TIMESTEPS,
            joint_attention_kwargs={"reads": reads},
            return_dict=False,
        )[0]
        return prediction.to(noisy.dtype)

    def encode_text(
        self, reader: TextReader, captions: Sequence[Caption], device: torch.device
    ) -> Conditions:
        """Return `text` (B, K, D), the CLIPs' states and then those of T5 (256 if the reader does not say),
        and the CLIPs' `pooled_text` (B, P).

        Without a third encoder T5's are zeros, as published. Each distinct caption runs once; the end of one
        that is too long is dropped, with a warning.
        """
        distinct = distinct_captions(captions)
        states, pooled = [], []
        for number, (tokenizer, encoder) in enumerate(
            zip(reader.tokenizers[:2], reader.encoders[:2], strict=True)
        ):
            tokens = torch.cat([tokenize(tokenizer, text) for text in read_by(number, distinct)]).to(device)
            output = encoder(tokens, output_hidden_states=True)
            states.append(output.hidden_states[-2])
            pooled.append(output.text_embeds)
        width = self.transformer.config["joint_attention_dim"]
        clip = torch.cat(states, dim=-1)
        most = reader.most_tokens or TEXT_TOKENS
        t5 = clip.new_zeros(len(distinct), most, width)
        if len(reader.encoders) > 2:
            t5 = encode_t5(reader.tokenizers[2], reader.encoders[2], read_by(2, distinct), most, device)
        text = torch.cat([F.pad(clip, (0, width - clip.shape[-1])), t5.to(clip.dtype)], dim=1)
        made = {"text": text, "pooled_text": torch.cat(pooled, dim=-1)}
        return select_rows(made, [distinct.index(caption) for caption in captions])

    def example_conditions(self, count: int, text_tokens: int) -> Conditions:
        config, device = self.transformer.config, self.transformer.device
        return {
            "text": torch.zeros(count, text_tokens, config["joint_attention_dim"], device=device),
            "pooled_text": torch.zeros(count, config["pooled_projection_dim"], device=device),
        }


def _normed(norm: nn.Module | None, tokens: torch.Tensor) -> torch.Tensor:
    normed: torch.Tensor = tokens if norm is None else norm(tokens)
    return normed


def _attention_layers(transformer: nn.Module) -> Iterator[tuple[str, Attention]]:
    for name, module in transformer.named_modules():
        if isinstance(module, Attention):
            yield name, module
