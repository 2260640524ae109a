"""FLUX.2 [klein] folders in the real format, with random weights of a few hundred kilobytes."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLFlux2,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
)
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2TokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

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


MISTRAL = (*("<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]"), *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"))
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}[SYSTEM_PROMPT]"
    "{{ message.content[0].text }}[/SYSTEM_PROMPT]{% else %}[INST]{{ message.content[0].text }}[/INST]"
    "{% endif %}{% endfor %}"
)


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Single bytes are its words; it fills up on the left."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: number for number, name in enumerate([*MISTRAL, *letters])}
    bytes_alone = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token=MISTRAL[0]))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), MISTRAL, strict=False))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_alone,
        additional_special_tokens=list(MISTRAL[4:]),
        padding_side="left",
        **names,
    )
    tokenizer.chat_template = MISTRAL_TEMPLATE
    return tokenizer


def dev_parts(seed: int = 0) -> dict:
    """FLUX.2 [dev]: Mistral 3 reads its text, and guidance is an input."""
    tokenizer = mistral_tokenizer()
    torch.manual_seed(seed)
    text = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=31,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=512,
    )
    eyes = PixtralVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=4,
    )
    encoder = Mistral3ForConditionalGeneration(Mistral3Config(vision_config=eyes, text_config=text)).eval()
    parts = {"text_encoder": encoder, "tokenizer": tokenizer}
    return klein_parts(seed) | parts | {"transformer": tiny_transformer(seed, guidance_embeds=True)}


def save_dev(folder: Path) -> Flux2Pipeline:
    """The pipeline that was saved. Its folder names Mistral's processor, as the published one does."""
    pipe = Flux2Pipeline(**dev_parts())
    pipe.save_pretrained(folder, max_shard_size="40KB")
    pipe.set_progress_bar_config(disable=True)
    index = folder / "model_index.json"
    named = json.loads(index.read_text()) | {"tokenizer": ["transformers", "PixtralProcessor"]}
    index.write_text(json.dumps(named))
    return pipe


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
