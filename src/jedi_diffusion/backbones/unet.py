"""From a single-image UNet to a joint one: a wider input, coupled self-attention, a denoiser over sets.

Letters: I pictures in a batch; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_processor import (
    Attention,
    AttentionProcessor,
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.backbones.text import TextReader, encode_text
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.inputs import Caption
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.sets import Conditions, SetBatch

# Processors that compute plain attention in different ways, so that the coupled one may stand in for them.
_PLAIN_PROCESSORS = (
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)


def make_joint(unet: UNet2DConditionModel, distance_slope: float | None = None) -> UNet2DConditionModel:
    """Widens the input and couples every self-attention of a diffusers UNet (SD 1.x, 2.x, SDXL), in place.

    Untrained, the widened model gives the base model's output for sets of one. distance_slope: see
    `install_coupling`. Calling it again changes nothing. Raises ModelError for a UNet that cannot be made
    joint.
    """
    return install_coupling(widen_input(unet), distance_slope)


def fresh_network(distance_slope: float | None = None, **settings: object) -> UNet2DConditionModel:
    """Return a joint UNet of these settings (those of diffusers' class), its weights drawn anew.

    distance_slope: see `install_coupling`.
    """
    return make_joint(UNet2DConditionModel(**settings), distance_slope)


def is_joint(unet: UNet2DConditionModel) -> bool:
    """Return whether `make_joint` has been applied: a widened input, and coupling on every self-attention."""
    coupled = [isinstance(attn.processor, CoupledSelfAttnProcessor) for _, attn in _self_attention(unet)]
    return bool(coupled) and all(coupled) and unet.config["in_channels"] == _joint_channels(unet)


def widen_input(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Widens `conv_in` from C channels to [noisy latents C, mask 1, reference latents C], in place.

    The new channels start at zero. A UNet that has 2C + 1 channels already, such as an inpainting checkpoint,
    whose mask means the same (1 = to be filled), is kept as it is. Raises ModelError for any other number.
    """
    channels, latents = unet.config["in_channels"], unet.config["out_channels"]
    if channels == _joint_channels(unet):
        return unet
    if channels != latents:
        raise ModelError(
            f"A UNet with {channels} input and {latents} output channels cannot be made joint; it needs "
            f"{latents} input channels (text-to-image) or {_joint_channels(unet)} (inpainting)."
        )
    old = unet.conv_in
    if type(old) is not nn.Conv2d:
        raise ModelError(
            f"The UNet's conv_in is a {type(old).__name__}; make the UNet joint before adding adapters."
        )
    new = nn.Conv2d(
        _joint_channels(unet), old.out_channels, old.kernel_size, old.stride, old.padding,  # type: ignore[arg-type]
        device=old.weight.device, dtype=old.weight.dtype,
    )  # fmt: skip
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :latents] = old.weight
        new.bias.copy_(old.bias)  # type: ignore[union-attr, arg-type]
    new.requires_grad_(old.weight.requires_grad)
    unet.conv_in = new
    unet.register_to_config(in_channels=_joint_channels(unet))
    return unet


def install_coupling(unet: UNet2DConditionModel, distance_slope: float | None = None) -> UNet2DConditionModel:
    """Put coupled attention on every self-attention, in place; cross-attention stays per picture.

    Pass `cross_attention_kwargs={"reads": SetReads(...)}` to the UNet. distance_slope: how much attention
    prefers near positions (`positions.distance_bias`); 0: not at all; None: as the UNet has it. It is no part
    of the weights: a model that was trained with it is wrong without it. Raises ModelError where an attention
    layer is not part of a transformer block, or its processor is more than plain attention, and for a
    negative slope.
    """
    slope = coupled_slope(unet) if distance_slope is None else distance_slope
    if not 0 <= slope < float("inf"):
        raise ModelError(f"distance_slope must be a number of at least 0, but is {slope}.")
    processors: dict[str, CoupledSelfAttnProcessor | PerPictureProcessor] = {}
    for name, attn in _attention_layers(unet):
        stock: object = attn.processor
        if isinstance(stock, CoupledSelfAttnProcessor | PerPictureProcessor):
            stock = stock.stock
        if not isinstance(stock, _PLAIN_PROCESSORS):
            raise ModelError(
                f"Attention layer {name} runs {type(stock).__name__}, which is not plain attention; "
                "unload what installed it before the UNet is made joint."
            )
        coupled, plain = not attn.is_cross_attention, cast(Processor, stock)
        processors[f"{name}.processor"] = (
            CoupledSelfAttnProcessor(name, plain, slope) if coupled else PerPictureProcessor(plain)
        )
    unet.set_attn_processor(cast("dict[str, AttentionProcessor]", processors))
    return unet


def coupled_slope(unet: UNet2DConditionModel) -> float:
    """Return the `distance_slope` that `install_coupling` was given; 0 for a UNet that is not coupled."""
    processors = unet.attn_processors.values()
    slopes = (each.distance_slope for each in processors if isinstance(each, CoupledSelfAttnProcessor))
    return max(slopes, default=0.0)


def remove_coupling(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Put the very processors back that `install_coupling` replaced, in place; the input stays wide."""
    unet.set_attn_processor(
        {name: getattr(processor, "stock", processor) for name, processor in unet.attn_processors.items()}
    )
    return unet


def _joint_channels(unet: UNet2DConditionModel) -> int:
    latents: int = unet.config["out_channels"]
    return 2 * latents + 1


def _attention_layers(unet: UNet2DConditionModel) -> Iterator[tuple[str, Attention]]:
    """Name and module of every attention layer, all of which sit in transformer blocks as attn1 or attn2."""
    for processor_name in unet.attn_processors:
        name = processor_name.removesuffix(".processor")
        block, _, place = name.rpartition(".")
        in_block = isinstance(unet.get_submodule(block), BasicTransformerBlock)
        if not in_block or place not in ("attn1", "attn2"):
            raise ModelError(
                f"Attention layer {name} is in no plain transformer block; it cannot be coupled."
            )
        yield name, cast(Attention, unet.get_submodule(name))


def _self_attention(unet: UNet2DConditionModel) -> Iterator[tuple[str, Attention]]:
    return ((name, attn) for name, attn in _attention_layers(unet) if not attn.is_cross_attention)


class Processor(Protocol):
    """A stock attention processor of diffusers."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        **more: torch.Tensor,
    ) -> torch.Tensor: ...


class CoupledSelfAttnProcessor:
    """A diffusers attention processor that couples the images of a set.

    Without `reads` every image is a set of its own, and the result is bit for bit that of diffusers'
    AttnProcessor2_0, unless `distance_slope` is above 0. `layer` names the layer in a reference cache;
    `stock` is the processor that it stands in for.
    """

    def __init__(self, layer: str, stock: Processor, distance_slope: float = 0.0) -> None:
        self.layer = layer
        self.stock = stock
        self.distance_slope = distance_slope
        self._attention_backend: AttentionBackendName | None = getattr(
            stock, "_attention_backend", None
        )  # diffusers sets it

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        reads: SetReads | None = None,
    ) -> torch.Tensor:
        """(I, L, C) -> (I, L, C). Raises UsageError for an attention mask, and as `SetReads.attend` does."""
        if attention_mask is not None:
            raise UsageError(
                "Coupled self-attention takes no attention mask; every token of a picture is seen."
            )
        layers = (attn.to_q, attn.to_k, attn.to_v)
        query, key, value = (layer(hidden_states).unflatten(-1, (attn.heads, -1)) for layer in layers)
        mixed = (reads or SetReads()).attend(
            self.layer, query, key, value, self.distance_slope, self._attention_backend
        )
        output: torch.Tensor = attn.to_out[1](attn.to_out[0](mixed.flatten(-2).to(query.dtype)))
        return output


class PerPictureProcessor:
    """Cross-attention as it was.

    It accepts the argument meant for coupled layers (diffusers warns of names a processor lacks), unused.
    """

    def __init__(self, stock: Processor) -> None:
        self.stock = stock

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        reads: SetReads | None = None,
    ) -> torch.Tensor:
        """(I, L, C) -> (I, L, C), each picture with its own text."""
        # Transformer blocks give no temb, and not every processor (SlicedAttnProcessor) takes one.
        more = {} if temb is None else {"temb": temb}
        return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, **more)


BLOCKS = ("down_blocks", "mid_block", "up_blocks")
"""Parts of a UNet in the order in which they run."""


class UNetBackbone(Backbone):
    """A joint UNet of the Stable Diffusion family; the input's layout is eq. 2's."""

    lora_targets = r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)|conv_in"
    shard_units = (BasicTransformerBlock, ResnetBlock2D)

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        if not is_joint(unet):
            raise ModelError("The UNet is not joint; call make_joint(unet) first.")
        self.unet = unet

    @classmethod
    def make_joint(cls, network: nn.Module) -> None:
        make_joint(cast(UNet2DConditionModel, network))

    @classmethod
    def couple(cls, network: nn.Module, distance_slope: float | None = None) -> None:
        unet = cast(UNet2DConditionModel, network)
        channels, needed = unet.config["in_channels"], _joint_channels(unet)
        if channels != needed:
            raise ModelError(
                f"The UNet has {channels} input channels where a joint model has {needed}; make one "
                "from a single-image model with JeDiPipeline.from_single_image_model(...)."
            )
        install_coupling(unet, distance_slope)

    @classmethod
    def is_coupled(cls, network: nn.Module) -> bool:
        return is_joint(cast(UNet2DConditionModel, network))

    @property
    def network(self) -> UNet2DConditionModel:
        return self.unet

    @property
    def attention_layers(self) -> list[str]:
        names = [name for name, _ in _self_attention(self.unet)]
        return sorted(names, key=lambda name: BLOCKS.index(name.partition(".")[0]))

    @property
    def latent_channels(self) -> int:
        channels: int = self.unet.config["out_channels"]
        return channels

    @property
    def lora_ranks(self) -> dict[str, int]:
        """Return the number of values that the first convolution reads from its new channels.

        Its adapter can then become anything that training the new channels could make of them.
        """
        config, first = self.unet.config, self.unet.conv_in
        rows, columns = first.kernel_size
        values = (config["in_channels"] - config["out_channels"]) * int(rows) * int(columns)
        return {"conv_in": min(values, first.out_channels)}

    @property
    def distance_slope(self) -> float:
        return coupled_slope(self.unet)

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor | float, batch: SetBatch, reads: SetReads
    ) -> torch.Tensor:
        mask = batch.mask.to(noisy).expand(-1, 1, *noisy.shape[-2:])
        inputs = torch.cat([noisy, mask, batch.reference_latents.to(noisy.dtype)], dim=1)
        dtype = self.unet.dtype
        prediction: torch.Tensor = self.unet(
            inputs.to(dtype),
            timestep,
            encoder_hidden_states=batch.text.to(dtype),
            added_cond_kwargs=self._added_conditions(batch.conditions),
            cross_attention_kwargs={"reads": reads},
            return_dict=False,
        )[0]
        return prediction.to(noisy.dtype)

    def _added_conditions(self, given: Conditions) -> dict[str, torch.Tensor] | None:
        """SDXL's pooled text and picture sizes."""
        if self.unet.config["addition_embed_type"] != "text_time":
            return None
        if not {"pooled_text", "time_ids"} <= given.keys():
            raise UsageError("This UNet (SDXL) needs `pooled_text` and `time_ids` in the batch.")
        return {"text_embeds": given["pooled_text"].to(self.unet.dtype), "time_ids": given["time_ids"]}

    def encode_text(
        self, reader: TextReader, captions: Sequence[Caption], device: torch.device
    ) -> Conditions:
        return encode_text(captions, reader, device)

    def example_conditions(self, count: int, text_tokens: int) -> Conditions:
        config, device = self.unet.config, self.unet.device
        made = {"text": torch.zeros(count, text_tokens, config["cross_attention_dim"], device=device)}
        if config["addition_embed_type"] == "text_time":
            width = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            made["pooled_text"] = torch.zeros(count, width, device=device)
            made["time_ids"] = torch.zeros(count, 6, device=device)
        return made

    def size_conditions(self, count: int, height: int, width: int, device: torch.device | str) -> Conditions:
        if self.unet.config["addition_embed_type"] != "text_time":
            return {}
        sizes = [[height, width, 0, 0, height, width]] * count  # original, corner of the crop, target
        return {"time_ids": torch.tensor(sizes, dtype=torch.float32, device=device)}
