"""FLUX.1 and SD3 folders in the real format, with random weights of a few hundred kilobytes."""

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

from tests.helpers.small_mmdit import CHANNELS, POOLED_WIDTH, TEXT_WIDTH, tiny_flux, tiny_sd3
from tests.helpers.small_pipelines import make_text_encoder, make_tokenizer

T5_WORDS = (
    "<pad>",
    "</s>",
    "<unk>",
    "\u2581a",
    "\u2581dog",
    "\u2581on",
    "\u2581the",
    "\u2581beach",
    "\u2581in",
    "\u2581snow",
)


def t5_tokenizer() -> T5TokenizerFast:
    vocabulary = [(word, -float(number)) for number, word in enumerate(T5_WORDS)]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=512)


def t5_encoder() -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(T5_WORDS),
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    return T5EncoderModel(config).eval()


def autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        layers_per_block=1,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def flux_parts(**config: object) -> dict:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    return {
        "vae": autoencoder(),
        "text_encoder": make_text_encoder(tokenizer, POOLED_WIDTH),
        "tokenizer": tokenizer,
        "text_encoder_2": t5_encoder(),
        "tokenizer_2": t5_tokenizer(),
        "transformer": tiny_flux(**config),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
        ),
    }


def sd3_parts(t5: bool = True, dynamic: bool = False, **config: object) -> dict:
    torch.manual_seed(0)
    tokenizer, half = make_tokenizer(), POOLED_WIDTH // 2
    return {
        "vae": autoencoder(),
        "text_encoder": make_text_encoder(tokenizer, half, projection=True),
        "tokenizer": tokenizer,
        "text_encoder_2": make_text_encoder(tokenizer, half, projection=True),
        "tokenizer_2": make_tokenizer(),
        "text_encoder_3": t5_encoder() if t5 else None,
        "tokenizer_3": t5_tokenizer() if t5 else None,
        "transformer": tiny_sd3(**config),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic),
    }
