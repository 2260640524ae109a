"""Tiny transformers of FLUX.1 and SD3, of the real classes, with random weights, and sets for them."""

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

from jedi_diffusion.sets import SetBatch
from tests.helpers.padded_sets import padded_batch

CHANNELS, TEXT_WIDTH, POOLED_WIDTH = 4, 24, 12
FLUX = {
    "in_channels": 4 * CHANNELS,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 12,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT_WIDTH,
    "pooled_projection_dim": POOLED_WIDTH,
    "axes_dims_rope": (4, 4, 4),
    "guidance_embeds": False,
}
SD3 = {
    "sample_size": 8,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "num_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT_WIDTH,
    "caption_projection_dim": 16,
    "pooled_projection_dim": POOLED_WIDTH,
    "pos_embed_max_size": 12,
}
SD35_MEDIUM = {"dual_attention_layers": (0, 1), "qk_norm": "rms_norm"}


def tiny_flux(seed: int = 0, **config: object) -> FluxTransformer2DModel:
    torch.manual_seed(seed)
    return FluxTransformer2DModel(**{**FLUX, **config}).eval()


def tiny_sd3(seed: int = 0, **config: object) -> SD3Transformer2DModel:
    torch.manual_seed(seed)
    return SD3Transformer2DModel(**{**SD3, **config}).eval()


def mmdit_batch(
    set_sizes: tuple[int, ...],
    references: tuple[int, ...] = (),
    extents: list[tuple[int, int]] | None = None,
    text_tokens: int = 5,
    seed: int = 0,
) -> SetBatch:
    """Random sets; images are 6 x 8 latents, or have their own sizes, padded."""
    widths = {"text": (text_tokens, TEXT_WIDTH), "pooled_text": (POOLED_WIDTH,)}
    extents = extents or [(6, 8)] * sum(set_sizes)
    return padded_batch(CHANNELS, widths, extents, set_sizes, references, seed)
