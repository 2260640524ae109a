"""The toybox's encoders behind the scorer's interface."""

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion.errors import UsageError
from jedi_diffusion.evaluation.encoders import TextEncoder
from jedi_toybox import world
from jedi_toybox.encoders import prompt_agreement
from jedi_toybox.judges import ToyboxFinder, load_judges
from jedi_toybox.score import to_picture


@pytest.fixture(scope="module")
def rendered() -> tuple[list[world.PictureSpec], world.Rendered]:
    specs = [
        world.sample_picture(world.sample_subject(seed, "held_out"), seed, style=style, attribute=attribute)
        for seed, (style, attribute) in enumerate(
            [("", ""), (world.STYLES[2], ""), ("", world.ATTRIBUTES[3])]
        )
    ]
    return specs, world.render(specs, 64)


def test_scores_are_those_of_the_network(rendered) -> None:
    specs, out = rendered
    pictures = [to_picture(each) for each in out.pictures]
    prompt, identity = load_judges()
    assert isinstance(prompt, TextEncoder)
    assert not isinstance(identity, TextEncoder)
    reading = identity.eyes.encoders.read(out.pictures)
    assert identity.images(pictures) == pytest.approx(reading.identity.numpy(), abs=1e-5)
    products = (prompt.images(pictures) * prompt.texts([spec.caption for spec in specs])).sum(1)
    assert products == pytest.approx(prompt_agreement(reading.fields, specs).numpy(), abs=1e-5)
    assert len(prompt.fingerprint) == 64


def test_two_judges_read_the_same_pictures_once(rendered, monkeypatch) -> None:
    pictures = [to_picture(each) for each in rendered[1].pictures]
    prompt, identity = load_judges()
    expected = load_judges()[1].images(pictures[:2])
    reads = []
    read = prompt.eyes.encoders.read
    monkeypatch.setattr(prompt.eyes.encoders, "read", lambda given: reads.append(len(given)) or read(given))
    prompt.images(pictures)
    identity.images(list(pictures))
    assert reads == [3]
    assert identity.images(pictures[:2]) == pytest.approx(expected, abs=1e-5)
    assert reads == [3, 2]
    identity.images([pictures[1], pictures[0]])
    assert reads == [3, 2, 2]


def test_pictures_of_several_sizes_keep_their_order(rendered) -> None:
    pictures = [to_picture(each) for each in rendered[1].pictures]
    mixed = [pictures[0], pictures[1].resize((100, 100)), pictures[2]]
    wide = Image.new("RGB", (96, 64))
    wide.paste(pictures[2], (16, 0))
    judge = load_judges()[1]
    plain, found = judge.images(pictures), judge.images([*mixed, wide])
    assert found[[0, 2]] == pytest.approx(plain[[0, 2]], abs=1e-5)
    assert float(found[1] @ plain[1]) > 0.9
    assert float(found[3] @ plain[2]) > 0.99


def test_every_caption_of_the_world_is_read_exactly() -> None:
    judge = load_judges()[0]
    phrases = ["an owl", "a thing"]
    for number, scene in enumerate(world.SCENES):
        style = ("", *world.STYLES)[number % 9]
        attribute = ("", *world.ATTRIBUTES)[number % 13]
        text = " ".join(filter(None, (style, phrases[number % 2], attribute, scene)))
        (row,) = judge.texts([text])
        ones = np.flatnonzero(row).tolist()
        begin = [0, len(world.SCENES), len(world.SCENES) + len(world.STYLES) + 1]
        places = [number, ("", *world.STYLES).index(style), ("", *world.ATTRIBUTES).index(attribute)]
        assert ones == [first + place for first, place in zip(begin, places, strict=True)], text
    with pytest.raises(UsageError, match="'a robot under a bus' names no scene"):
        judge.texts(["a robot under a bus"])


def test_the_finder_finds_most_of_a_subject_and_little_else(rendered) -> None:
    _, out = rendered
    masks = ToyboxFinder().find([to_picture(each) for each in out.pictures], ["a thing"] * 3)
    found = torch.from_numpy(np.stack(masks))
    shared = (found & out.masks).sum() / (found | out.masks).sum()
    assert found.shape == out.masks.shape
    assert float(shared) > 0.4
