"""Make what the recipe beside this file trains: a small FLUX.2 model with random weights, and toybox sets.

python -m experiments.small_flux2.prepare --out runs/small-flux2

The transformer is a `Flux2Transformer2DModel` of 256 features. The text encoder is Qwen3's architecture with
random weights: 28 layers whose states are little more than a random vector for each word, which is enough to
tell captions of a closed vocabulary apart. The autoencoder is the bundled model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from PIL import Image
from tokenizers import pre_tokenizers
from tqdm import tqdm
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from jedi_diffusion.data.record import StoredSet
from jedi_diffusion.data.shards import ShardWriter
from jedi_diffusion.parts import setting
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.sets import ImageSet
from jedi_toybox import folder_of
from jedi_toybox.source import ToyboxSource

CHUNK = 64
"""Sets rendered at a time."""
TEXT_TOKENS = 16
TEXT_WIDTH = 128
TEMPLATE = "{% for message in messages %} {{ message.content }}{% endfor %}"
END, PAD = "<|im_end|>", "<|endoftext|>"
TRANSFORMER: dict[str, Any] = {
    "num_layers": 2,
    "num_single_layers": 4,
    "attention_head_dim": 64,
    "num_attention_heads": 4,
    "joint_attention_dim": 3 * TEXT_WIDTH,
    "mlp_ratio": 3.0,
    "axes_dims_rope": (16, 16, 16, 16),
    "guidance_embeds": False,
}


@dataclass(frozen=True)
class Options:
    """Write OUT/base, a model to be trained, and OUT/sets, shards of rendered sets."""

    out: str
    """Folder for both."""
    subjects: int = 1536
    """Sets."""
    pictures: int = 4
    """Pictures of each."""
    resolution: int = 128
    """Side of a picture in pixels."""
    alike: float = 0.8
    """Share of the sets whose pictures one camera shows."""
    seed: int = 31
    """Other subjects and weights."""


def word_tokenizer(words: Sequence[str], length: int) -> Qwen2Tokenizer:
    """Return Qwen's tokenizer with a vocabulary of its own: each of `words`, after a space, is one token.

    Merges join a word from its first letter on, so that nothing but its beginnings are pieces of it.
    """
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str
    merges: dict[tuple[str, str], None] = {}
    for word in sorted(set(words)):
        letters = spell(f" {word}")[0][0]
        merges |= dict.fromkeys((letters[:end], letters[end]) for end in range(1, len(letters)))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *("".join(pair) for pair in merges), PAD, END]
    pairs: list[Any] = list(merges)
    tokenizer = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))},
        merges=pairs,
        pad_token=PAD,
        eos_token=END,
        unk_token=PAD,
        model_max_length=length,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def small_model(words: Sequence[str], seed: int) -> JeDiPipeline:
    """Return the model with random weights, whose transformer predicts zero at first."""
    torch.manual_seed(seed)
    tokenizer = word_tokenizer(words, TEXT_TOKENS)
    text_encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=TEXT_WIDTH,
            num_hidden_layers=28,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=512,
            tie_word_embeddings=True,
        )
    )
    torch.nn.init.normal_(text_encoder.model.embed_tokens.weight)
    vae = JeDiPipeline.from_pretrained(folder_of("toybox"), dtype=torch.float32).vae
    channels = 4 * setting(vae.config, "latent_channels", int)  # of patches of 2 x 2 latents
    transformer: Any = Flux2Transformer2DModel(in_channels=channels, **TRANSFORMER)
    torch.nn.init.zeros_(transformer.proj_out.weight)
    parts: dict[str, Any] = {
        "vae": vae,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=2.0, use_dynamic_shifting=True),
    }
    return JeDiPipeline(unet=None, **parts)


def write_sets(source: ToyboxSource, given: Options, folder: Path) -> None:
    """Render the sets into shards."""
    with ShardWriter(folder) as writer:
        for first in tqdm(range(0, given.subjects, CHUNK), unit=f" x {CHUNK} sets"):
            count = min(CHUNK, given.subjects - first)
            made = source.sets(first, count, given.pictures, given.resolution, "cpu")
            for number in range(count):
                pictures = made.pictures[number].permute(0, 2, 3, 1).numpy()
                image_set = ImageSet(
                    pictures=tuple(Image.fromarray(each) for each in pictures),
                    captions=tuple(made.captions[number]),
                    source="toybox",
                    subject=made.names[number],
                )
                writer.write(StoredSet.encode(f"{first + number:06d}", image_set, "png"))


def main() -> None:
    given = tyro.cli(Options)
    out = Path(given.out)
    source = ToyboxSource(seed=given.seed, alike=given.alike, compiled=given.subjects > CHUNK)
    small_model(source.words, given.seed).save_pretrained(out / "base", safe_serialization=True)
    write_sets(source, given, out / "sets")


if __name__ == "__main__":
    main()
