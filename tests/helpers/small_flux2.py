"""Tiny FLUX.2 models of the real classes, with random weights."""

import torch
from diffusers import Flux2Transformer2DModel

from jedi_diffusion.sets import SetBatch
from tests.helpers.padded_sets import padded_batch

TINY = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "timestep_guidance_channels": 16,
    "mlp_ratio": 2.0,
    "axes_dims_rope": (4, 4, 4, 4),
    "guidance_embeds": False,
}

KLEIN_4B = {
    "in_channels": 128,
    "num_layers": 5,
    "num_single_layers": 20,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "axes_dims_rope": (32, 32, 32, 32),
    "guidance_embeds": False,
}
"""The real shape of [klein] 4B."""


def tiny_transformer(seed: int = 0, **config: object) -> Flux2Transformer2DModel:
    torch.manual_seed(seed)
    return Flux2Transformer2DModel(**{**TINY, **config}).eval()


def flux2_batch(
    set_sizes: tuple[int, ...],
    references: tuple[int, ...] = (),
    extents: list[tuple[int, int]] | None = None,
    text_tokens: int = 5,
    seed: int = 0,
) -> SetBatch:
    """Random sets; images are 4 x 6 latents, or have their own sizes, padded."""
    widths = {"text": (text_tokens, TINY["joint_attention_dim"])}
    extents = extents or [(4, 6)] * sum(set_sizes)
    return padded_batch(TINY["in_channels"], widths, extents, set_sizes, references, seed)
