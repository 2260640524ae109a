"""Small random UNets with the real structure of SD 1.4 and SDXL, and batches to run them on.

The configurations are those of the released checkpoints with narrow widths: same block types, same numbers of
layers and transformer blocks, same kinds of conditions.
"""

import math
from collections.abc import Sequence

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from jedi_diffusion.backbones.unet import install_coupling
from jedi_diffusion.sets import Conditions, SetBatch

TEXT_TOKENS = 7
TEXT_WIDTH = 24
POOLED_WIDTH = 16
SLOPE = 2.0

SD14_CONFIG = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "norm_num_groups": 32,
}

SDXL_CONFIG = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    "norm_num_groups": 32,
}

SMALL_SD14_CONFIG = SD14_CONFIG | {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64, 64),
    "cross_attention_dim": TEXT_WIDTH,
    "norm_num_groups": 16,
}

SMALL_SDXL_CONFIG = SDXL_CONFIG | {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64),
    "attention_head_dim": (2, 4, 4),
    "cross_attention_dim": TEXT_WIDTH,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": POOLED_WIDTH + 6 * 8,
    "norm_num_groups": 16,
}

TWO_LEVELS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
}


def random_unet(config: dict, seed: int = 0) -> UNet2DConditionModel:
    """A UNet of random weights, in evaluation mode; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(**config).eval()


def small_sd14_unet(seed: int = 0, **changes: object) -> UNet2DConditionModel:
    return random_unet(SMALL_SD14_CONFIG | changes, seed)


def small_sdxl_unet(seed: int = 0, **changes: object) -> UNet2DConditionModel:
    return random_unet(SMALL_SDXL_CONFIG | changes, seed)


def near_sd14_unet() -> UNet2DConditionModel:
    """A coupled `small_sd14_unet` whose attention prefers near positions, by SLOPE."""
    return install_coupling(small_sd14_unet(), SLOPE)


def distances(height: int, width: int) -> torch.Tensor:
    """Between the tokens of a grid, counted row by row: (L, L), in tokens."""
    places = [(row, column) for row in range(height) for column in range(width)]
    return torch.tensor([[math.dist(one, other) for other in places] for one in places])


def tiny_unet(seed: int = 0, **changes: object) -> UNet2DConditionModel:
    """SD 1.4's kinds of blocks at two levels with one layer each: for what costs time with every layer."""
    return random_unet(SMALL_SD14_CONFIG | TWO_LEVELS | changes, seed)


def tiny_sdxl_unet(seed: int = 0, **changes: object) -> UNet2DConditionModel:
    """SDXL's kinds of blocks and conditions at two levels with one layer each."""
    own = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
    }
    return random_unet(SMALL_SDXL_CONFIG | TWO_LEVELS | own | changes, seed)


def sdxl_conditions(images: int, random: torch.Generator) -> Conditions:
    pooled = torch.randn(images, POOLED_WIDTH, generator=random)
    return {"pooled_text": pooled, "time_ids": torch.tensor([[512.0, 512, 0, 0, 512, 512]]).repeat(images, 1)}


def random_batch(
    unet: UNet2DConditionModel,
    set_sizes: Sequence[int],
    references: Sequence[int] = (),
    seed: int = 0,
    size: int = 8,
) -> SetBatch:
    """A batch for `unet` whose pictures numbered in `references` are references; latents are size x size."""
    config, pictures = unet.config, sum(set_sizes)
    random = torch.Generator().manual_seed(seed)
    mask = torch.ones(pictures, 1, 1, 1)
    mask[list(references)] = 0
    sdxl = config.addition_embed_type == "text_time"
    return SetBatch(
        latents=torch.randn(pictures, config.out_channels, size, size, generator=random),
        mask=mask,
        conditions={
            "text": torch.randn(pictures, TEXT_TOKENS, config.cross_attention_dim, generator=random),
            **(sdxl_conditions(pictures, random) if sdxl else {}),
        },
        set_sizes=tuple(set_sizes),
    )


def randomize_new_channels(unet: UNet2DConditionModel, seed: int = 0) -> UNet2DConditionModel:
    """Gives random weights to the channels that `widen_input` left at zero, so that they matter."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        new = unet.conv_in.weight[:, unet.config.out_channels :]
        new.copy_(torch.randn(new.shape, generator=random) * 0.1)
    return unet
