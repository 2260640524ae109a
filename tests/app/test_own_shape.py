"""Models that read references in their own shape get them uncut: by the API, the page and the command."""

import base64
import io
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from jedi_diffusion import JeDiPipeline, Reference
from jedi_diffusion.app.runner import PipelineRunner
from jedi_diffusion.app.session import Controls, Session, ask_of, read_photo
from jedi_diffusion.calls import Call
from jedi_diffusion.errors import UsageError
from jedi_diffusion.options import SizedSampling
from jedi_diffusion.references import OwnShape
from jedi_diffusion.watermark import marked
from tests.app.test_masked_uploads import edit, mask, photo
from tests.helpers.fake_runners import CARD
from tests.helpers.small_klein import save_klein

SHAPE = OwnShape(1024**2, least=64, ratio=8)
WHOLE = replace(CARD, own_shape=SHAPE)


class Gated(PipelineRunner):
    """With the gate that the fixture `serve` opens at the end."""

    def __init__(self, pipe: JeDiPipeline) -> None:
        super().__init__(pipe)
        self.gate = threading.Event()


def test_the_api_makes_what_the_pipeline_makes_of_whole_photos(serve, tmp_path) -> None:
    save_klein(tmp_path / "klein")
    pipe = JeDiPipeline.from_pretrained(tmp_path / "klein")
    pipe.set_progress_bar_config(disable=True)
    running = serve(Gated(pipe), card=replace(WHOLE, factor=16))
    wide, tall, drawn = photo(width=160), photo(1, 64, 128), mask((0, 0, 80, 64), width=160)
    how = SizedSampling(height=64, width=64, steps=1, guidance=1.0)
    fields = {"steps": "1", "guidance_scale": "1"}
    with running.client() as client:
        for masks, references in (
            ([], [wide, tall]),
            ([drawn, Image.new("L", (64, 128), 255)], [Reference(wide, mask=drawn), tall]),
        ):
            answer = edit(client, [wide, tall], masks, **fields)
            assert answer.status_code == 200, answer.text
            data = base64.b64decode(answer.json()["data"][0]["b64_json"])
            (want,) = PipelineRunner(pipe).run(Call(["a robot"], [0], references, (), how), lambda *_: None)
            assert Image.open(io.BytesIO(data)).tobytes() == marked(want).tobytes()


def test_the_api_refuses_a_shape_that_is_not_read_and_bounds_pixels(serve) -> None:
    running = serve(card=WHOLE)
    with running.client() as client:
        answer = edit(client, [Image.new("RGB", (20000, 300))], [], size="16x16")
        assert answer.status_code == 400
        assert "photo.png has 20000 x 300 pixels; this model reads sides" in answer.json()["error"]["message"]
        assert not running.runner.calls
        assert edit(client, [Image.new("RGB", (5000, 2500))], [], size="16x16").status_code == 200
    assert running.runner.calls[0].references[0].size == (2896, 1448)


def test_a_request_holds_sixteen_references(serve) -> None:
    running = serve()
    with running.client() as client:
        assert edit(client, [photo()] * 16, [], size="16x16").status_code == 200
        answer = edit(client, [photo()] * 17, [], size="16x16")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].endswith("`jedi generate` takes more.")


def test_the_page_asks_for_whole_photos(tmp_path: Path) -> None:
    for name, size in {"wide": (3000, 1000), "strip": (900, 100)}.items():
        Image.new("RGB", size, "teal").save(tmp_path / f"{name}.png")
    wide = read_photo(tmp_path / "wide.png", "wide.png", SHAPE)
    ask = ask_of(Session([wide]), Controls(prompts="a robot"), WHOLE)
    assert ask.references[0].size == (1773, 591)
    assert ask_of(Session([wide]), Controls(prompts="a robot"), CARD).references[0].size == (16, 16)
    with pytest.raises(UsageError, match=r"strip\.png has 900 x 100 pixels"):
        read_photo(tmp_path / "strip.png", "strip.png", SHAPE)
