"""A word-level CLIP tokenizer and a small CLIP text encoder, for models that know a closed vocabulary."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"
WORD_END = "</w>"

Merge = tuple[str, str]


def make_word_tokenizer(words: Iterable[str], max_length: int) -> CLIPTokenizer:
    """Return a CLIPTokenizer to which every one of `words` is a single token; all other text splits into
    pieces.

    The same words give the same token numbers, always. `init_kwargs["whole_words"]` lists the words, sorted.
    """
    known = sorted({word.lower() for word in words})
    merges: Any = learn_merges(known)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Every byte, also as the last of a word, so that no text is ever without tokens.
    tokens = [START, END, PAD, *letters, *(letter + WORD_END for letter in letters), *map("".join, merges)]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))},
        merges=merges,
        pad_token=PAD,
        model_max_length=max_length,
        whole_words=known,
    )


def learn_merges(words: Sequence[str]) -> list[Merge]:
    """Return byte-pair merges in order of use, until every word is one token.

    The library's trainer breaks ties by the order of a hash table, differently in every process; here the
    pair that is first in the alphabet wins.
    """
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str
    spelled = [spell(word)[0][0] for word in words]
    pieces = [[*word[:-1], word[-1] + WORD_END] for word in spelled]
    merges: list[Merge] = []
    while counts := Counter(pair for word in pieces for pair in pairwise(word)):
        merges.append(min(counts, key=lambda pair: (-counts[pair], pair)))
        pieces = [_merged(word, merges[-1]) for word in pieces]
    return merges


def _merged(word: list[str], pair: Merge) -> list[str]:
    """Return the word with every occurrence of the pair joined, from left to right."""
    joined: list[str] = []
    for piece in word:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def make_text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int, heads: int) -> CLIPTextModel:
    """Return a CLIPTextModel with fresh weights that fits the tokenizer; text features are `width` wide."""
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
    """Return token ids (I, K), int64, padded and cut to the tokenizer's length K."""
    return tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
