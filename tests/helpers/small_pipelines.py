"""Small random models with every part of a pipeline, in memory and as folders in the real format.

Parts around the UNets of `small_models`: real classes, narrow layers, random weights.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.helpers.small_models import SD14_CONFIG, SDXL_CONFIG, random_unet, tiny_sdxl_unet, tiny_unet

WORDS = ("a", "robot", "dog", "on", "the", "beach", "in", "snow")
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NARROW_SD14_CONFIG = SD14_CONFIG | {
    "block_out_channels": (8, 16, 16, 16),
    "attention_head_dim": 1,
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
}
NARROW_SDXL_CONFIG = SDXL_CONFIG | {
    "block_out_channels": (8, 16, 32),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
    "norm_num_groups": 4,
}


def make_tokenizer(max_length: int = 16, **settings: object) -> CLIPTokenizer:
    """A CLIP tokenizer to which each of WORDS is one token; other text is single bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = ["".join(pieces[:2])]
    merges = list(dict.fromkeys(merges))
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    names += ["".join(pair) for pair in merges]
    vocab = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length, **settings)


def make_text_encoder(tokenizer: CLIPTokenizer, width: int, projection: bool = False) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def make_autoencoder() -> AutoencoderKL:
    """Four levels, so 8 pixels a latent, as in every Stable Diffusion."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        scaling_factor=0.18215,
    ).eval()


def make_scheduler() -> DDIMScheduler:
    return DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def sd_parts(seed: int = 0, **unet: object) -> dict:
    """Components of a single-image model with SD 1.4's kinds of parts, for 64x64 pixels."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    return {
        "vae": make_autoencoder(),
        "text_encoder": make_text_encoder(tokenizer, 24),
        "tokenizer": tokenizer,
        "unet": tiny_unet(seed, sample_size=8, **unet),
        "scheduler": make_scheduler(),
    }


def sdxl_parts(seed: int = 0) -> dict:
    """Components of a single-image model with SDXL's kinds of parts, for 64x64 pixels."""
    parts = sd_parts(seed)
    return parts | {
        "text_encoder": make_text_encoder(parts["tokenizer"], 8),
        "text_encoder_2": make_text_encoder(parts["tokenizer"], 16, projection=True),
        "tokenizer_2": make_tokenizer(),
        "unet": tiny_sdxl_unet(seed, sample_size=8),
    }


def save_sd14(folder: Path) -> Path:
    """A folder like Stable Diffusion 1.4's with narrow layers: 512x512 pictures, 77 tokens."""
    tokenizer = make_tokenizer(77)
    parts = sd_parts() | {
        "tokenizer": tokenizer,
        "text_encoder": make_text_encoder(tokenizer, 16),
        "unet": random_unet(NARROW_SD14_CONFIG),
    }
    StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained(folder)
    return folder


def save_sdxl(folder: Path) -> Path:
    """A folder like Stable Diffusion XL's with narrow layers: 1024x1024 pictures, both text encoders."""
    tokenizer = make_tokenizer(77)
    parts = sd_parts() | {
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "text_encoder": make_text_encoder(tokenizer, 16),
        "text_encoder_2": make_text_encoder(tokenizer, 16, projection=True),
        "unet": random_unet(NARROW_SDXL_CONFIG),
        "scheduler": EulerDiscreteScheduler(**NOISE, steps_offset=1),
    }
    StableDiffusionXLPipeline(
        **parts, force_zeros_for_empty_prompt=True, add_watermarker=False
    ).save_pretrained(folder)
    return folder


def save_joint(folder: Path) -> Path:
    """A joint model for 32x32 pictures that samples in milliseconds."""
    from jedi_diffusion import JeDiPipeline

    tokenizer = make_tokenizer(77)
    parts = sd_parts(in_channels=9) | {
        "tokenizer": tokenizer,
        "text_encoder": make_text_encoder(tokenizer, 24),
    }
    parts["unet"].register_to_config(sample_size=4)
    JeDiPipeline(**parts).save_pretrained(folder)
    return folder
