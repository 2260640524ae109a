import ast
import os
import subprocess
import sys

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from jedi_diffusion.networks.text import make_text_encoder, make_word_tokenizer, tokenize

WORDS = ("a", "an", "robot", "object", "on", "the", "beach", "bot", "obese", "t-rex", "hat", "that")


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text("abcdefghij", min_size=1, max_size=8), min_size=1, max_size=30))
def test_every_listed_word_is_one_token(words: list[str]) -> None:
    tokenizer = make_word_tokenizer(words, 16)
    assert all(len(tokenizer.tokenize(word)) == 1 for word in words)


def test_the_same_words_have_the_same_numbers_always() -> None:
    numbers = make_word_tokenizer(WORDS, 16).get_vocab()
    assert make_word_tokenizer(reversed(WORDS), 16).get_vocab() == numbers
    script = (
        f"from jedi_diffusion.networks.text import *; print(make_word_tokenizer({WORDS}, 16).get_vocab())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    printed = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert ast.literal_eval(printed.stdout.decode()) == numbers


def test_other_text_splits_into_pieces_and_none_is_lost() -> None:
    tokenizer = make_word_tokenizer(WORDS, 16)
    assert tokenizer.tokenize("a Robot on") == ["a</w>", "robot</w>", "on</w>"]
    pieces = tokenizer.tokenize("castle naïve 日")
    assert len(pieces) > 3
    assert tokenizer.unk_token_id not in tokenizer.convert_tokens_to_ids(pieces)


def test_it_is_saved_and_loaded_whole(tmp_path) -> None:  # type: ignore[no-untyped-def]
    tokenizer = make_word_tokenizer(WORDS, 16)
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    captions = ["a robot on the beach", "", "castle", "a " * 40]
    assert torch.equal(tokenize(tokenizer, captions), tokenize(again, captions))
    assert tokenize(again, captions).shape == (4, 16)
    assert again.init_kwargs["whole_words"] == sorted(WORDS)


def test_the_text_encoder_fits_the_tokenizer() -> None:
    tokenizer = make_word_tokenizer(WORDS, 16)
    encoder = make_text_encoder(tokenizer, width=32, layers=1, heads=2)
    ids = tokenize(tokenizer, ["a robot", "a hat"])
    assert encoder(ids).last_hidden_state.shape == (2, 16, 32)
    assert ids.max() < encoder.config.vocab_size
    expected = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 128, "projection_dim": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    assert {name: getattr(encoder.config, name) for name in expected} == expected
    assert len({expected["bos_token_id"], expected["eos_token_id"]}) == 2
