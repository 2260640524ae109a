"""Random checkpoints in the real diffusers folder format: SD 1.4 and SDXL narrowed, and a joint model."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SD14_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (8, 16, 16, 16),
    "norm_num_groups": 4,
    "layers_per_block": 2,
    "attention_head_dim": 1,
    "cross_attention_dim": 16,
}
SDXL_UNET = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (8, 16, 32),
    "norm_num_groups": 4,
    "layers_per_block": 2,
    "attention_head_dim": (1, 2, 4),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "cross_attention_dim": 32,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
}
JOINT_UNET = {
    "sample_size": 4,
    "in_channels": 9,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def save_sd14(folder: Path) -> Path:
    """A Stable Diffusion 1.4 of narrow layers: 512x512 pictures, 77 tokens, every weight random."""
    torch.manual_seed(0)
    StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text_config(16)).eval(),
        tokenizer=byte_tokenizer(),
        unet=UNet2DConditionModel(**SD14_UNET),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def save_sdxl(folder: Path) -> Path:
    """A Stable Diffusion XL of narrow layers, with both text encoders."""
    torch.manual_seed(0)
    StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text_config(16)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(16)).eval(),
        tokenizer=byte_tokenizer(),
        tokenizer_2=byte_tokenizer(),
        unet=UNet2DConditionModel(**SDXL_UNET),
        scheduler=EulerDiscreteScheduler(**NOISE, steps_offset=1),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def save_joint(folder: Path) -> Path:
    """A joint model for 32x32 pictures that samples in milliseconds."""
    from jedi_diffusion import JeDiPipeline

    torch.manual_seed(0)
    JeDiPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text_config(16)).eval(),
        tokenizer=byte_tokenizer(),
        unet=UNet2DConditionModel(**JOINT_UNET),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def autoencoder() -> AutoencoderKL:
    """Four levels, so 8 pixels a latent, as in every Stable Diffusion."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=512,
        scaling_factor=0.18215,
    )


def text_config(width: int) -> Any:
    return CLIPTextConfig(
        vocab_size=len(byte_vocabulary()),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )


def byte_vocabulary() -> dict[str, int]:
    """CLIP's first 514 tokens: every byte, every byte as the last of a word, start and end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}


def byte_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab=byte_vocabulary(), merges=[], model_max_length=77)
