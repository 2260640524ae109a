"""Names of subjects in prompts, and new words in tokenizers and text encoders."""

from typing import Any

import pytest
import torch

from jedi_diffusion.errors import UsageError
from jedi_diffusion.methods.naming import identifier, knows, new_word, noun_of, rename
from jedi_diffusion.methods.parameters import private_copy
from jedi_diffusion.pipeline import JeDiPipeline
from tests.helpers.small_pipelines import WORDS, make_tokenizer, sd_parts, sdxl_parts


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pipe() -> JeDiPipeline:
    return JeDiPipeline(**sd_parts(in_channels=9))


@pytest.fixture
def closed() -> JeDiPipeline:
    """A model that reads WORDS only."""
    tokenizer = make_tokenizer(whole_words=sorted(WORDS))
    return JeDiPipeline(**sd_parts(in_channels=9) | {"tokenizer": tokenizer})


@pytest.mark.parametrize(
    ("caption", "noun"),
    [("a dog", "dog"), ("An apple", "apple"), ("the stuffed animal", "stuffed animal"), ("ant", "ant")],
)
def test_nouns_of_captions(caption: str, noun: str) -> None:
    assert noun_of(caption) == noun


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a dog on a dog bed", "a sks dog on a dog bed"),
        ("A DOG", "A sks dog"),
        ("a hotdog near dogs", "sks dog, a hotdog near dogs"),
        ("", "sks dog"),
    ],
)
def test_names_in_prompts(prompt: str, expected: str) -> None:
    assert rename(prompt, "dog", "sks dog") == expected
    assert rename("a c++ (dog)", "c++", r"\1 c++") == r"a \1 c++ (dog)"


def encode(pipe: Any, *prompts: str) -> torch.Tensor:
    with torch.no_grad():
        return pipe.encode_captions(list(prompts))["text"]


def test_a_new_word_is_one_token_to_the_copy_alone(pipe: JeDiPipeline) -> None:
    prompts = ["a dog on the beach", "", "newwords", "a newword on the beach"]
    before = encode(pipe, *prompts)
    table, tokenizer = pipe.text_encoder.get_input_embeddings(), pipe.tokenizer
    length, config = len(tokenizer), dict(pipe.config)
    own = private_copy(pipe)
    (row,) = new_word(own, "newword", "dog", seeded()).values()
    during = encode(own, *prompts)
    assert torch.equal(during[:3], before[:3]), "other prompts read as before"
    assert torch.equal(during[3], before[0]), "it starts as the word it is like"
    ids = own.tokenizer("a newword on the beach").input_ids
    assert len(ids) == len(tokenizer("a dog on the beach").input_ids)
    with torch.no_grad():
        row.add_(torch.randn(row.shape, generator=seeded()))  # a norm takes a constant away
    changed = encode(own, *prompts)
    assert torch.equal(changed[:3], before[:3])
    assert not torch.allclose(changed[3], during[3], atol=1e-3)
    assert torch.equal(encode(pipe, *prompts), before)
    assert pipe.text_encoder.get_input_embeddings() is table
    assert pipe.tokenizer is tokenizer
    assert (len(tokenizer), dict(pipe.config)) == (length, config)


def test_gradients_reach_the_new_row_alone(pipe: JeDiPipeline) -> None:
    own = private_copy(pipe)
    row = new_word(own, "newword", "", seeded())["text_encoder.newword"]
    own.encode_captions(["a newword", "a dog"])["text"][0].square().sum().backward()
    assert row.grad is not None
    assert row.grad.abs().sum() > 0
    others = [each.grad for each in own.text_encoder.parameters() if each is not row]
    assert others == [None] * len(others)
    assert torch.equal(encode(own, "a dog"), encode(pipe, "a dog"))


def test_sdxl_gets_a_row_in_each_encoder_and_keeps_its_pooled_text() -> None:
    parts = sdxl_parts()
    parts["unet"].register_to_config(in_channels=9)
    parts["unet"].conv_in = torch.nn.Conv2d(9, 32, 3, padding=1)
    for old_end in (False, True):
        if old_end:  # what SDXL's config says
            parts["text_encoder_2"].text_model.eos_token_id = 2
        pipe: Any = JeDiPipeline(**parts)
        own = private_copy(pipe)
        rows = new_word(own, "newword", "dog", seeded())
        with torch.no_grad():
            before = pipe.encode_captions(["a dog on the beach", "a robot"])
            during = own.encode_captions(["a newword on the beach", "a robot"])
        assert {name: tuple(each.shape) for name, each in rows.items()} == {
            "text_encoder.newword": (1, 8),
            "text_encoder_2.newword": (1, 16),
        }
        assert torch.equal(before["text"], during["text"])
        if not old_end:  # with the old number random weights read another end; the real ones the same
            assert torch.equal(before["pooled_text"], during["pooled_text"])
        assert parts["text_encoder_2"].text_model.eos_token_id == (
            2 if old_end else parts["tokenizer_2"].eos_token_id
        )


def test_identifiers_of_closed_vocabularies_are_new_words(pipe: JeDiPipeline, closed: JeDiPipeline) -> None:
    assert knows(pipe.tokenizer, "sks")
    assert not knows(closed.tokenizer, "sks")
    open_one = private_copy(pipe)
    identifier(open_one, "sks", seeded())
    assert len(open_one.tokenizer) == len(pipe.tokenizer)
    assert torch.equal(encode(closed, "a sks dog"), encode(closed, "a dog"))
    read = []
    for _ in range(2):
        own = private_copy(closed)
        identifier(own, "sks", seeded())
        read.append(encode(own, "a sks dog"))
        assert not torch.allclose(read[-1], encode(own, "a dog"), atol=1e-3)
    assert torch.equal(*read)
    assert torch.equal(encode(closed, "a sks dog"), encode(closed, "a dog"))


@pytest.mark.parametrize("word", ["", "New", "two words", "<new>", "é"])
def test_names_that_no_model_reads_as_one_word_are_refused(pipe: JeDiPipeline, word: str) -> None:
    with pytest.raises(UsageError, match="small letters and digits"):
        identifier(pipe, word, seeded())
