"""BLIP-2: captions are what its language model says of a picture, in any batch."""

import json
import shutil

import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, Blip2ForConditionalGeneration

from jedi_diffusion.errors import ModelError
from jedi_diffusion.vision.blip2 import Blip2Captioner
from jedi_diffusion.vision.settings import Blip2Settings


@pytest.fixture(scope="module")
def folder(checkpoint):
    return checkpoint("blip2")


def make(folder, **changes):
    return Blip2Captioner(Blip2Settings(**{"model": str(folder), "max_new_tokens": 8, **changes}), "cpu")


def word_by_word(folder, pictures, steps=8):
    """The likeliest word after word, each by a whole pass."""
    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    words, processor = (
        AutoTokenizer.from_pretrained(folder),
        AutoImageProcessor.from_pretrained(folder, backend="pil"),
    )
    for picture in pictures:
        pixels, ids = processor(picture, return_tensors="pt"), [4, 4, 4, 4, 2]
        while len(ids) < 5 + steps and ids[5:][-1:] != [2]:
            with torch.no_grad():
                ids.append(int(model(**pixels, input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        yield words.decode(ids[5:], skip_special_tokens=True)


def test_a_caption_is_the_likeliest_word_after_word(folder, pictures):
    captions = make(folder, beams=1).caption(pictures, range(5))
    assert captions == list(word_by_word(folder, pictures))
    assert len(set(captions)) > 1
    assert "word" in "".join(captions)
    assert "<" not in "".join(captions)


def test_a_picture_gets_the_same_in_any_batch_and_with_any_seed(folder, pictures):
    captioner = make(folder)
    together = captioner.caption(pictures, range(5))
    captioner.batch_size = 2
    assert captioner.caption(pictures[::-1], range(5))[::-1] == together
    captioner.batch_size = 1
    assert captioner.caption(pictures, [9] * 5) == together


def test_a_language_model_with_a_decoder_of_its_own_repeats_nothing(checkpoint, pictures):
    folder = checkpoint("blip2_t5")
    captioner = make(folder, beams=1)
    captions = captioner.caption(pictures, range(5))
    model, words = captioner.model, AutoTokenizer.from_pretrained(folder)
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(pictures[:1], return_tensors="pt")
    given, said = torch.tensor([[4, 4, 4, 4, 2]]), [1]
    while len(said) < 9 and said[-1] != 2:
        with torch.no_grad():
            out = model(**pixels, input_ids=given, decoder_input_ids=torch.tensor([said]))
        said.append(int(out.logits[0, -1].argmax()))
    assert captions[0] == words.decode(said, skip_special_tokens=True)
    assert captioner.caption(pictures[3:], [0, 0]) == captions[3:]


def test_reduced_precision_runs(folder, pictures):
    captions = make(folder, dtype="bfloat16").caption(pictures, range(5))
    assert "word" in "".join(captions)


def test_a_folder_that_does_not_place_the_picture_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "old")
    config = json.loads((copy / "config.json").read_text())
    config.pop("image_token_index")
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"no image_token_index in its config\.json: take a newer revision"):
        make(copy)
