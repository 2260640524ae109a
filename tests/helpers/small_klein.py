"""FLUX.2 [klein] folders in the real format, with random weights of a few hundred kilobytes."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLFlux2,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
)
from tokenizers import pre_tokenizers
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tests.helpers.small_flux2 import tiny_transformer

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""What Qwen3's own template makes of one message of a user."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WIDTH = 8


def qwen_tokenizer() -> Qwen2TokenizerFast:
    """Single bytes are its words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: number for number, name in enumerate([*letters, *SPECIAL])}
    tokenizer = Qwen2TokenizerFast(
        vocab=vocabulary,
        merges=[],
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        unk_token=SPECIAL[0],
        additional_special_tokens=list(SPECIAL),
        model_max_length=131072,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def klein_parts(seed: int = 0) -> dict:
    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
    )
    with torch.no_grad():
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2)
    return {
        "vae": vae.eval(),
        "text_encoder": Qwen3ForCausalLM(config).eval(),
        "tokenizer": tokenizer,
        "transformer": tiny_transformer(seed),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
        ),
    }


def save_klein(
    folder: Path,
    kind: type[DiffusionPipeline] = Flux2KleinPipeline,
    is_distilled: bool = True,
    shards: str = "40KB",
    dtype: torch.dtype = torch.float32,
) -> DiffusionPipeline:
    """The pipeline that was saved, with weights in shards as those of the real ones."""
    pipe = kind(**klein_parts(), is_distilled=is_distilled).to(dtype)
    pipe.save_pretrained(folder, max_shard_size=shards)
    pipe.set_progress_bar_config(disable=True)
    return pipe
