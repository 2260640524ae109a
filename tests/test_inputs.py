"""Prompts and pictures: what is checked of them, and the tensors that they become."""

import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion.backbones.text import TextReader, encode_text, tokenize
from jedi_diffusion.errors import UsageError
from jedi_diffusion.inputs import PromptReader, check_prompt, known_text, read_prompt, to_pixels
from tests.helpers.small_pipelines import WORDS, make_text_encoder, make_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def encoder(tokenizer):
    torch.manual_seed(0)
    return make_text_encoder(tokenizer, 16)


@torch.no_grad()
def test_one_encoder_gives_its_last_states(tokenizer, encoder):
    prompts = ["a robot", "", "a robot", "a dog on the beach"]
    text = encode_text(prompts, TextReader((tokenizer,), (encoder,)), CPU)
    assert "pooled_text" not in text
    for row, prompt in zip(text["text"], prompts, strict=True):
        ids = tokenizer(prompt, padding="max_length", max_length=16, return_tensors="pt").input_ids
        torch.testing.assert_close(row, encoder(ids).last_hidden_state[0])


@torch.no_grad()
def test_two_encoders_give_joined_penultimate_states_and_the_second_ones_pooled(tokenizer, encoder):
    second = make_text_encoder(tokenizer, 24, projection=True)
    text = encode_text(
        ["a dog"],
        TextReader(
            (
                tokenizer,
                tokenizer,
            ),
            (
                encoder,
                second,
            ),
        ),
        CPU,
    )
    ids = tokenizer(["a dog"], padding="max_length", max_length=16, return_tensors="pt").input_ids
    outputs = [each(ids, output_hidden_states=True) for each in (encoder, second)]
    torch.testing.assert_close(text["text"], torch.cat([out.hidden_states[-2] for out in outputs], -1))
    torch.testing.assert_close(text["pooled_text"], outputs[1].text_embeds)
    zeros = encode_text(
        ["", "a dog"],
        TextReader(
            (
                tokenizer,
                tokenizer,
            ),
            (
                encoder,
                second,
            ),
            True,
        ),
        CPU,
    )
    assert zeros["text"][0].abs().max() == zeros["pooled_text"][0].abs().max() == 0
    torch.testing.assert_close(zeros["text"][1:], text["text"])


@torch.no_grad()
def test_what_is_too_long_is_dropped_and_quoted(tokenizer, encoder, caplog):
    fits = " ".join(["a robot"] * 7)
    with caplog.at_level(logging.WARNING):
        short = encode_text([fits], TextReader((tokenizer,), (encoder,)), CPU)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        long = encode_text([f"{fits} on the beach"], TextReader((tokenizer,), (encoder,)), CPU)
    assert "'on the beach'" in caplog.text
    assert "16 tokens" in caplog.text
    torch.testing.assert_close(long["text"], short["text"])


@torch.no_grad()
def test_a_megabyte_of_prompt_is_cut_with_a_short_report(tokenizer, encoder, caplog):
    with caplog.at_level(logging.WARNING):
        encode_text(["a dog " * 170_000], TextReader((tokenizer,), (encoder,)), CPU)
    assert len(caplog.text) < 11_000
    assert "dropped" in caplog.text


def test_unknown_words_take_no_place_of_known_ones():
    """The words left out go first; of what is left the end is cut, and quoted as it was written."""
    closed = make_tokenizer(max_length=6, whole_words=list(WORDS))
    reading = read_prompt(closed, "zebra, " * 30 + "a Robot!")
    assert (reading.text, reading.unknown, reading.dropped) == ("a robot", ("zebra",), "")
    reading = read_prompt(closed, "A zebra on the beach -- in FOG, the dog & a robot.")
    assert reading.dropped == "in FOG, the dog & a robot."
    assert closed(reading.text, truncation=True, max_length=6).input_ids == closed("a on the beach").input_ids
    assert reading.unknown == ("zebra", "fog")
    fits = read_prompt(closed, "a dog on the")
    assert (fits.dropped, read_prompt(closed, "a dog on the fog").dropped) == ("", "")


@torch.no_grad()
def test_all_that_is_dropped_is_quoted_and_everywhere_the_same(tokenizer, encoder, caplog):
    end = " ".join(f"the robot {number}" for number in range(300))
    prompt = "a dog on the beach in the snow a dog on the beach in " + end
    with caplog.at_level(logging.WARNING):
        encode_text([prompt, "a dog"], TextReader((tokenizer,), (encoder,)), CPU)
    (said,) = [record.getMessage() for record in caplog.records]
    assert repr(end) in said
    assert f"last {len(end)} characters" in said
    reader = pickle.loads(pickle.dumps(PromptReader.of(tokenizer, None, tokenizer)))
    assert reader.cut_off([prompt, "a dog"]) == [said]
    assert reader.unknown_words([prompt]) == []


@pytest.mark.parametrize("bad", ["a\0b", "a \udcff", 7])
def test_what_is_no_text_is_refused(bad):
    with pytest.raises(UsageError, match=r"(?i)prompt"):
        check_prompt(bad)


def test_unknown_words_are_named_once_where_the_vocabulary_is_closed(tokenizer):
    closed = make_tokenizer(whole_words=list(WORDS))
    asked = ["A zebra, a robot and a ZEBRA", "and a dog, on-the-beach!"]
    assert PromptReader.of(closed).unknown_words(asked) == ["zebra", "and"]
    assert PromptReader.of(closed).unknown_words(asked[1:]) == ["and"]
    assert PromptReader.of(tokenizer).unknown_words(["a zebra"]) == []


def test_unknown_words_are_left_out_where_the_vocabulary_is_closed(tokenizer):
    closed = make_tokenizer(whole_words=list(WORDS))
    assert known_text(closed, "A zebra,  a ROBOT!") == "a a robot"
    assert known_text(tokenizer, "A zebra,  a ROBOT!") == "A zebra,  a ROBOT!"


def striped(width, height):
    """A picture whose red is its column, green its row, as parts of the whole."""
    columns, rows = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([columns, rows, 0 * rows], -1).round().astype(np.uint8))


@pytest.mark.parametrize("kind", ["pillow", "array", "tensor"])
def test_pictures_are_cut_to_their_centre_and_resized(kind):
    picture = striped(200, 100)
    if kind == "array":
        picture = np.array(picture)
    if kind == "tensor":
        picture = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    pixels = to_pixels([picture], 50, 50)
    assert pixels.shape == (1, 3, 50, 50)
    columns = torch.linspace(0.2525, 0.7475, 50) * 2 - 1
    torch.testing.assert_close(pixels[0, 0, 25], columns, rtol=0, atol=0.02)
    rows = torch.linspace(0.005, 0.995, 50) * 2 - 1
    torch.testing.assert_close(pixels[0, 1, :, 25], rows, rtol=0, atol=0.02)


def test_pictures_of_the_right_size_are_not_touched():
    picture = striped(40, 40)
    pixels = to_pixels([picture], 40, 40)
    expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert torch.equal(((pixels[0] + 1) * 127.5).round().byte(), expected)


def test_other_modes_become_rgb():
    pixels = to_pixels([Image.new("L", (8, 8), 255), Image.new("RGBA", (8, 8), (0, 0, 0, 0))], 8, 8)
    assert torch.equal(pixels, torch.ones(2, 3, 8, 8))


@pytest.mark.parametrize(
    "bad",
    [
        torch.rand(3, 8, 8) * 255,
        torch.full((3, 8, 8), float("nan")),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.rand(4, 8, 8),
        np.zeros((8, 8)),
        "photo.jpg",
    ],
    ids=["range", "nan", "dtype", "channels", "array", "path"],
)
def test_what_is_no_picture_is_refused_by_number(bad):
    with pytest.raises(UsageError, match="Reference 2"):
        to_pixels([Image.new("RGB", (8, 8)), bad], 8, 8)


def test_tokens_are_those_that_the_text_encoder_reads() -> None:
    tokenizer = make_tokenizer()
    reader = PromptReader.of(tokenizer)
    for prompt in ("a robot", "", "a robot on the beach " * 40):
        assert reader.tokens([prompt]) == len(tokenizer(prompt, truncation=True).input_ids)
    assert reader.tokens(["a robot", "a dog"]) == reader.tokens(["a robot"]) + reader.tokens(["a dog"])


def test_a_tokenizer_that_threads_share_reads_each_prompt_whole(caplog):
    tokenizer = make_tokenizer()
    want = tokenize(tokenizer, "a dog on the beach")

    def read(_):
        fits = read_prompt(tokenizer, "a robot").dropped == ""
        return fits and torch.equal(tokenize(tokenizer, "a dog on the beach"), want)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(100)))
    assert "exceeds" not in caplog.text
