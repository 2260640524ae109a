"""From a single-image UNet to a joint one: a wider input, coupled self-attention, a denoiser over sets.

Letters: I pictures in a batch; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.joint.attention import coupled_attention
from jedi_diffusion.joint.cache import CacheView, CacheWriter, ReferenceCache
from jedi_diffusion.joint.denoiser import Coupling
from jedi_diffusion.joint.positions import Size, distance_bias, token_grid
from jedi_diffusion.joint.record import AttentionWriter
from jedi_diffusion.sets import REFERENCE_TIMESTEP, SetBatch

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


def is_joint(unet: UNet2DConditionModel) -> bool:
    """Whether `make_joint` has been applied: a widened input, and coupling on every self-attention."""
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
    """Puts coupled attention on every self-attention, in place; cross-attention stays per picture.

    Pass `cross_attention_kwargs={"set_sizes": ...}` to the UNet. distance_slope: how much attention prefers
    near positions (`positions.distance_bias`); 0: not at all; None: as the UNet has it, or not at all. It is
    no part of the weights: a model that was trained with it is wrong without it. Raises ModelError where an
    attention layer is not part of a transformer block, or its processor is more than plain attention, and
    for a negative slope.
    """
    slope = coupled_slope(unet) if distance_slope is None else distance_slope
    if not 0 <= slope < float("inf"):
        raise ModelError(f"distance_slope must be a number of at least 0, but is {slope}.")
    processors: dict[str, Any] = {}
    for name, attn in _attention_layers(unet):
        stock = attn.processor
        if isinstance(stock, CoupledSelfAttnProcessor | PerPictureProcessor):
            stock = stock.stock
        if not isinstance(stock, _PLAIN_PROCESSORS):
            raise ModelError(
                f"Attention layer {name} runs {type(stock).__name__}, which is not plain attention; "
                "unload what installed it before the UNet is made joint."
            )
        coupled = not attn.is_cross_attention
        processors[f"{name}.processor"] = (
            CoupledSelfAttnProcessor(name, stock, slope) if coupled else PerPictureProcessor(stock)
        )
    unet.set_attn_processor(processors)
    return unet


def coupled_slope(unet: UNet2DConditionModel) -> float:
    """The `distance_slope` that `install_coupling` was given; 0 for a UNet that is not coupled."""
    processors = unet.attn_processors.values()
    slopes = (each.distance_slope for each in processors if isinstance(each, CoupledSelfAttnProcessor))
    return max(slopes, default=0.0)


def remove_coupling(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Puts the very processors back that `install_coupling` replaced, in place; the input stays wide."""
    unet.set_attn_processor(
        {name: getattr(processor, "stock", processor) for name, processor in unet.attn_processors.items()}
    )
    return unet


def _joint_channels(unet: UNet2DConditionModel) -> int:
    return 2 * unet.config["out_channels"] + 1


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


class CoupledSelfAttnProcessor:
    """A diffusers attention processor that couples the pictures of a set.

    Without `set_sizes` every picture is a set of its own, and the result is bit for bit that of diffusers'
    AttnProcessor2_0, unless `distance_slope` is above 0: attention then prefers tokens at near positions
    (`positions.distance_bias`). `layer` names the layer in a reference cache; `stock` is the processor it
    stands in for.
    """

    def __init__(self, layer: str, stock: Any, distance_slope: float = 0.0) -> None:
        self.layer = layer
        self.stock = stock
        self.distance_slope = distance_slope

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        set_sizes: Sequence[int] | None = None,
        reference_cache: CacheWriter | CacheView | None = None,
        is_reference: torch.Tensor | None = None,
        attention_record: AttentionWriter | None = None,
        latent_size: Size | None = None,
    ) -> torch.Tensor:
        """(I, L, C) -> (I, L, C).

        set_sizes: N of every set, in order. reference_cache: a writer keeps this pass's keys and values, a
        view adds those of references to what each set sees. is_reference (I,) bool: see `coupled_attention`.
        attention_record: takes down where targets look; the result is the same. latent_size: height and width
        of the UNet's latents, which attention by position needs. Raises UsageError for sizes that do not add
        up to I, an attention mask, a cache that does not fit, or a latent_size that is missing.
        """
        if attention_mask is not None:
            raise UsageError(
                "Coupled self-attention takes no attention mask; every token of a picture is seen."
            )
        layers = (attn.to_q, attn.to_k, attn.to_v)
        query, key, value = (layer(hidden_states).unflatten(-1, (attn.heads, -1)) for layer in layers)
        sizes = _checked_sizes(set_sizes, pictures=hidden_states.shape[0])
        bias = self._bias(query, latent_size)
        references = None
        if isinstance(reference_cache, CacheWriter):
            reference_cache.store(self.layer, key, value)
        elif reference_cache is not None:
            references = reference_cache.read(self.layer, like=key)
        if attention_record is not None:
            attention_record.store(self.layer, query, key, sizes, references, bias)
        mixed = coupled_attention(query, key, value, sizes, references, is_reference, bias)
        output: torch.Tensor = attn.to_out[0](mixed.flatten(-2).to(query.dtype))
        return attn.to_out[1](output)

    def _bias(self, query: torch.Tensor, latent_size: Size | None) -> torch.Tensor | None:
        if not self.distance_slope:
            return None
        if latent_size is None:
            raise UsageError(
                "This UNet attends by position: call it through JointDenoiser, or give `latent_size`, the "
                "latents' (height, width), in cross_attention_kwargs."
            )
        _, tokens, heads, _ = query.shape
        return distance_bias(token_grid(latent_size, tokens), heads, self.distance_slope, query.device)


class PerPictureProcessor:
    """Cross-attention as it was.

    It accepts the arguments meant for coupled layers (diffusers warns of names a processor lacks) and ignores
    them.
    """

    def __init__(self, stock: Any) -> None:
        self.stock = stock

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        set_sizes: Sequence[int] | None = None,
        reference_cache: CacheWriter | CacheView | None = None,
        is_reference: torch.Tensor | None = None,
        attention_record: AttentionWriter | None = None,
        latent_size: Size | None = None,
    ) -> torch.Tensor:
        """(I, L, C) -> (I, L, C), each picture with its own text."""
        # Transformer blocks give no temb, and not every processor (SlicedAttnProcessor) takes one.
        more = {} if temb is None else {"temb": temb}
        return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, **more)


def _checked_sizes(set_sizes: Sequence[int] | None, pictures: int) -> tuple[int, ...]:
    if set_sizes is None:
        return (1,) * pictures
    if min(set_sizes, default=0) < 1 or sum(set_sizes) != pictures:
        raise UsageError(
            f"Set sizes {tuple(set_sizes)} do not add up to the {pictures} pictures of the batch."
        )
    return tuple(set_sizes)


class JointDenoiser(nn.Module):
    """Predicts the noise (or v) of sets of pictures with a joint UNet; the input layout is eq. 2's.

    A module, so that one call of it is one forward pass for wrappers such as DistributedDataParallel.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        if not is_joint(unet):
            raise ModelError("The UNet is not joint; call make_joint(unet) first.")
        self.unet = unet

    def forward(
        self,
        noisy: torch.Tensor,
        timestep: torch.Tensor | float,
        batch: SetBatch,
        coupling: Coupling = "joint",
        reference_cache: CacheView | None = None,
        attention_record: AttentionWriter | None = None,
    ) -> torch.Tensor:
        """noisy (I, C, H, W) and a timestep, scalar or (I,), to the prediction (I, C, H, W) in noisy's dtype.

        coupling "joint": all pictures of a set attend to each other. "cached" without a cache (training): the
        references of each set run first, on clean latents at REFERENCE_TIMESTEP whatever `noisy` holds for
        them, and each target reads them and itself; gradients flow through both. "cached" with a view of a
        filled cache (sampling): `batch` holds targets only, whose sets read what the view gives them.
        attention_record: takes down where targets look, while sampling only. Raises UsageError for an unknown
        coupling or conditions that the UNet lacks.
        """
        if coupling not in ("joint", "cached"):
            raise UsageError(f"Unknown coupling {coupling!r}; it is 'joint' or 'cached'.")
        if coupling == "joint":
            if reference_cache is not None:
                raise UsageError("A reference cache needs coupling 'cached'.")
            return self._run(noisy, timestep, batch, None, attention_record)
        if reference_cache is not None:
            return self._run(noisy, timestep, batch, reference_cache, attention_record)
        if attention_record is not None:
            raise UsageError("With coupling 'cached', attention is recorded where a filled cache is read.")
        return self._run_both(noisy, timestep, batch)

    def fill_cache(self, references: SetBatch) -> ReferenceCache:
        """One pass over sets that hold references only; the cache's set s is the batch's set s.

        The caller owns the cache: `cache.for_sets(...)` gives what `forward` reads.
        """
        cache = ReferenceCache()
        self._read_references(references, cache.writer(references.set_sizes))
        return cache

    def _read_references(self, references: SetBatch, writer: CacheWriter) -> torch.Tensor:
        if not bool(references.is_reference.all()):
            raise UsageError(
                "A reference cache is filled from references only; the batch holds targets (mask 1)."
            )
        return self._run(references.latents, REFERENCE_TIMESTEP, references, writer)

    def _run_both(self, noisy: torch.Tensor, timestep: torch.Tensor | float, batch: SetBatch) -> torch.Tensor:
        """References, then targets reading them; outputs in the order of the batch."""
        flags = batch.is_reference.tolist()
        rows = {kind: [row for row, flag in enumerate(flags) if flag is kind] for kind in (True, False)}
        reference_sizes, index = _split_sets(flags, batch.set_sizes)
        outputs, cache = [], ReferenceCache()
        if reference_sizes:
            references = batch.select(rows[True], reference_sizes)
            outputs.append(self._read_references(references, cache.writer(reference_sizes)).to(noisy.dtype))
        if index:
            targets = batch.select(rows[False], (1,) * len(index))
            steps = timestep
            if isinstance(timestep, torch.Tensor) and timestep.ndim:
                steps = timestep[rows[False]]
            outputs.append(self._run(noisy[rows[False]], steps, targets, cache.for_sets(index)))
        order = rows[True] + rows[False]
        back = sorted(range(len(order)), key=order.__getitem__)
        return torch.cat(outputs)[back]

    def _run(
        self,
        noisy: torch.Tensor,
        timestep: torch.Tensor | float,
        batch: SetBatch,
        reference_cache: CacheWriter | CacheView | None = None,
        attention_record: AttentionWriter | None = None,
    ) -> torch.Tensor:
        mask = batch.mask.to(noisy.dtype).expand(-1, 1, *noisy.shape[-2:])
        inputs = torch.cat([noisy, mask, batch.reference_latents.to(noisy.dtype)], dim=1)
        dtype = self.unet.dtype
        prediction: torch.Tensor = self.unet(
            inputs.to(dtype),
            timestep,
            encoder_hidden_states=batch.text.to(dtype),
            added_cond_kwargs=self._added_conditions(batch),
            cross_attention_kwargs={
                "set_sizes": batch.set_sizes,
                "reference_cache": reference_cache,
                "attention_record": attention_record,
                "latent_size": tuple(noisy.shape[-2:]),
            },
            return_dict=False,
        )[0]
        return prediction.to(noisy.dtype)

    def _added_conditions(self, batch: SetBatch) -> dict[str, torch.Tensor] | None:
        """SDXL's pooled text and picture sizes."""
        if self.unet.config["addition_embed_type"] != "text_time":
            return None
        if batch.pooled_text is None or batch.time_ids is None:
            raise UsageError("This UNet (SDXL) needs `pooled_text` and `time_ids` in the batch.")
        return {"text_embeds": batch.pooled_text.to(self.unet.dtype), "time_ids": batch.time_ids}


def _split_sets(flags: Sequence[bool], set_sizes: Sequence[int]) -> tuple[tuple[int, ...], list[int | None]]:
    """Sizes of the reference sets, and for each target which of those sets it reads, or None."""
    sizes: list[int] = []
    index: list[int | None] = []
    start = 0
    for size in set_sizes:
        count = sum(flags[start : start + size])
        index += [len(sizes) if count else None] * (size - count)
        if count:
            sizes.append(count)
        start += size
    return tuple(sizes), index
