"""Masks and strengths of references through the API: what they make, and what is said of wrong ones."""

import base64
import io
import threading

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion import JeDiPipeline, Reference
from jedi_diffusion.app.jobs import Ask
from jedi_diffusion.app.runner import PipelineRunner
from jedi_diffusion.calls import Call
from jedi_diffusion.options import SizedSampling
from jedi_diffusion.watermark import marked
from tests.helpers.small_pipelines import save_joint

SAMPLING = SizedSampling(height=64, width=64, steps=2)


def photo(seed: int = 0, width: int = 96, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def mask(box: tuple[int, int, int, int], width: int = 96, height: int = 64) -> Image.Image:
    drawn = Image.new("L", (width, height))
    drawn.paste(255, box)
    return drawn


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, format="PNG")
    return data.getvalue()


def edit(client, photos: list, masks: list, **fields: object):
    files = [("image[]", ("photo.png", png(each))) for each in photos]
    files += [("reference_mask[]", ("mask.png", png(each))) for each in masks]
    form = {"prompt": "a robot", "seed": "0", "steps": "2", "size": "64x64"} | fields
    return client.post("/v1/images/edits", data=form, files=files)


class Gated(PipelineRunner):
    """With the gate that the fixture `serve` opens at the end."""

    def __init__(self, pipe: JeDiPipeline) -> None:
        super().__init__(pipe)
        self.gate = threading.Event()


def test_masks_and_strengths_make_what_the_pipeline_makes_of_them(serve, tmp_path) -> None:
    """A photo is cut to the square, its mask with it."""
    pipe = JeDiPipeline.from_pretrained(save_joint(tmp_path / "joint"))
    pipe.set_progress_bar_config(disable=True)
    running = serve(Gated(pipe))
    whole, drawn, white = photo(), mask((30, 10, 60, 60)), Image.new("L", (96, 64), 255)
    with running.client() as client:
        answers = {
            "whole": edit(client, [whole, whole], []),
            "white": edit(client, [whole, whole], [white, white]),
            "masked": edit(client, [whole, whole], [drawn, white]),
            "weak": edit(client, [whole, whole], [drawn, white], reference_strength=["0.5", "1"]),
            "all weak": edit(client, [whole, whole], [], reference_strength="0.5"),
        }
    made = {}
    for name, answer in answers.items():
        assert answer.status_code == 200, answer.text
        data = base64.b64decode(answer.json()["data"][0]["b64_json"])
        made[name] = Image.open(io.BytesIO(data)).tobytes()
    assert made["whole"] == made["white"]
    assert len(set(made.values())) == 4
    square, kept = whole.crop((16, 0, 80, 64)), drawn.crop((16, 0, 80, 64))
    references = [Reference(square, mask=kept, strength=0.5), square]
    want = PipelineRunner(pipe).run(Call(["a robot"], [0], references, (), SAMPLING), lambda *_: None)
    assert made["weak"] == marked(want[0]).tobytes()


def test_asks_that_read_a_photo_in_other_ways_are_not_computed_together() -> None:
    square = photo(width=64)
    ways = [
        square,
        Reference(square, mask=mask((0, 0, 32, 64), width=64)),
        Reference(square, mask=mask((32, 0, 64, 64), width=64)),
        Reference(square, strength=2.0),
    ]
    asks = [Ask(("a",), (0,), (each,), (), SAMPLING) for each in ways]
    assert len({ask.key for ask in asks}) == 4
    assert [ask.bytes for ask in asks] == [64 * 64 * 3, 2 * 64 * 64 * 3, 2 * 64 * 64 * 3, 64 * 64 * 3]


BAD = {
    "another number": ([mask((0, 0, 96, 64))], {}, "1 masks for 2 references: give none, or one each"),
    "another size": ([mask((0, 0, 9, 9), 9, 9)] * 2, {}, "mask.png has 9x9 pixels, but photo.png has 96x64"),
    "empty": ([mask((0, 0, 0, 0))] * 2, {}, "The mask mask.png is empty"),
    "cut away": ([mask((0, 0, 9, 64))] * 2, {}, "photo.png is cut to its centre, where its mask mask.png"),
    "strength 0": (
        [],
        {"reference_strength": "0"},
        "reference_strength.0 is '0', but must be greater",
    ),
    "below 0": ([], {"reference_strength": ["1", "-1"]}, "reference_strength.1 is '-1', but must be greater"),
    "no number": (
        [],
        {"reference_strength": "a lot"},
        "reference_strength.0 is 'a lot', but must be",
    ),
    "too many": ([], {"reference_strength": ["1"] * 3}, "3 reference strengths for 2 references"),
    "text": ([], {"reference_mask": "mask.png"}, "reference_mask must be a file"),
}


@pytest.mark.parametrize(("masks", "fields", "said"), BAD.values(), ids=BAD)
def test_what_is_wrong_with_them_is_said_in_a_sentence(running, masks, fields, said) -> None:
    with running.client() as client:
        answer = edit(client, [photo(), photo()], masks, **fields)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
    assert running.runner.calls == []
