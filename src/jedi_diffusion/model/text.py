"""A word-level CLIP tokenizer and a small CLIP text encoder, for models that know a closed vocabulary."""

import json
from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"


def make_word_tokenizer(words: Iterable[str], max_length: int) -> CLIPTokenizer:
    """A CLIPTokenizer to which every one of `words` is a single token; all other text splits into pieces.

    Byte-pair merges are learned on the list until no pair is left, so encoding a listed word repeats its
    merges to the end. `init_kwargs["whole_words"]` lists the words, sorted.
    """
    base = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    base.normalizer = normalizers.Lowercase()
    base.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    base.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        special_tokens=[START, END, PAD],
        initial_alphabet=sorted(alphabet),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    known = sorted(set(words))
    base.train_from_iterator(known, trainer)
    vocabulary = base.get_vocab()
    # Every byte also as the last of a word, so that no text is ever without tokens.
    for letter in sorted(alphabet):
        vocabulary.setdefault(f"{letter}</w>", len(vocabulary))
    return CLIPTokenizer(
        vocab=vocabulary, merges=_merges(base), pad_token=PAD, model_max_length=max_length, whole_words=known
    )


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def make_text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int, heads: int) -> CLIPTextModel:
    """A CLIPTextModel with fresh weights that fits the tokenizer; text features are `width` wide."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> torch.Tensor:
    """Token ids (I, K), int64, padded and cut to the tokenizer's length K."""
    return tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
