"""Tiny transformers of FLUX.1 and SD3, of the real classes, with random weights, and sets for them."""

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

from jedi_diffusion.sets import SetBatch

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
    images = sum(set_sizes)
    generator = torch.Generator().manual_seed(seed)
    extents = extents or [(6, 8)] * images
    height, width = (max(each[axis] for each in extents) for axis in (0, 1))
    latents = torch.randn(images, CHANNELS, height, width, generator=generator)
    for latent, (rows, columns) in zip(latents, extents, strict=True):
        latent[:, rows:], latent[:, :, columns:] = 0, 0
    mask = torch.tensor([float(number not in references) for number in range(images)])
    conditions = {
        "text": torch.randn(images, text_tokens, TEXT_WIDTH, generator=generator),
        "pooled_text": torch.randn(images, POOLED_WIDTH, generator=generator),
        "extent": torch.tensor(extents),
    }
    return SetBatch(latents, mask.view(-1, 1, 1, 1), conditions, set_sizes)
