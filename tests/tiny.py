"""Small random models in Stable Diffusion's classes, for tests of everything that needs a whole pipeline."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

WORDS = ("a", "robot", "dog", "on", "the", "beach", "in", "snow")


def make_tokenizer(**settings) -> CLIPTokenizer:
    """A CLIP tokenizer to which WORDS are one token each, other text is single letters, 16 tokens at most."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = ["".join(pieces[:2])]
    merges = list(dict.fromkeys(merges))
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    names += ["".join(pair) for pair in merges]
    vocab = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=16, **settings)


def make_text_encoder(tokenizer: CLIPTokenizer, width: int, projection: bool = False) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def make_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        scaling_factor=0.18215,
    ).eval()


def make_unet(width: int, **settings) -> UNet2DConditionModel:
    """SD 1.4's shape, narrow: cross-attention at the first level, none at the last; 4 input channels."""
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "layers_per_block": 1,
            "block_out_channels": (16, 32),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": width,
            "attention_head_dim": 4,
            "norm_num_groups": 8,
        }
        | settings
    ).eval()


def make_scheduler(**settings) -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **settings,
    )


def sd_parts(seed: int = 0, **unet) -> dict:
    """Components of an SD 1.4-like single-image model at 64x64 pixels."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    return {
        "vae": make_autoencoder(),
        "text_encoder": make_text_encoder(tokenizer, 16),
        "tokenizer": tokenizer,
        "unet": make_unet(16, **unet),
        "scheduler": make_scheduler(),
    }


def sdxl_parts(seed: int = 0) -> dict:
    """Components of an SDXL-like single-image model at 64x64 pixels."""
    parts = sd_parts(seed)
    parts["text_encoder_2"] = make_text_encoder(parts["tokenizer"], 24, projection=True)
    parts["tokenizer_2"] = make_tokenizer()
    parts["unet"] = make_unet(
        16 + 24,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    return parts
