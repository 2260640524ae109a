"""OpenAI's image API, field by field, by its own clients: Python and Node, whole and streamed."""

import base64
import io
import json
import shutil
import subprocess
import time

import httpx
import openai
import pytest
from openai.types import (
    ImageEditCompletedEvent,
    ImageEditPartialImageEvent,
    ImageGenCompletedEvent,
    ImageGenPartialImageEvent,
)
from PIL import ExifTags, Image

from jedi_diffusion.app.fields import read_fields
from jedi_diffusion.app.images import due_steps
from jedi_diffusion.app.session import Controls, sampling_of
from jedi_diffusion.credentials import media_type, seal_of
from jedi_diffusion.options import Sampling
from tests.helpers.certificates import make_signer, read_manifest
from tests.helpers.fake_runners import SIDE, FakeRunner, picture_of

MARK = "made with jedi-diffusion, model toybox"
NODE = "openai@6.49.0"
"""The npm client, which needs no other package."""


def photo() -> tuple[str, bytes]:
    data = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "teal").save(data, format="PNG")
    return "photo.png", data.getvalue()


def decoded(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.fixture
def client(running):
    settings = {"base_url": f"{running.url}/v1", "api_key": "none", "max_retries": 0, "timeout": 30}
    with openai.OpenAI(**settings) as made:
        yield made


def sampling(running):
    return running.runner.calls[-1].sampling


@pytest.mark.parametrize(
    ("quality", "usual", "distilled"),
    [
        *[("low", 10, 2), ("medium", 25, 4), ("high", 50, 8), ("xhigh", 100, 16), ("max", 200, 32)],
        *[("auto", 25, 4), ("standard", 25, 4), ("hd", 50, 8)],
    ],
)
def test_quality_is_a_share_of_the_models_own_steps_unless_these_are_given(quality, usual, distilled) -> None:
    few = Sampling(steps=4, guidance=1.0, null_set="single")
    fields = read_fields({"prompt": "a", "quality": quality})
    assert fields.over(Sampling()) == Sampling(steps=usual)
    assert fields.over(few) == few.model_copy(update={"steps": distilled})
    given = read_fields({"prompt": "a", "quality": quality, "steps": 7, "guidance_scale": 3.0})
    assert given.over(few) == Sampling(steps=7, guidance=3.0, null_set="single")


def test_high_input_fidelity_is_the_pages_end_for_photos_unless_guidance_is_given() -> None:
    close = sampling_of(Controls(balance=-1.0), Sampling())
    assert (close.guidance_mode, close.guidance, close.image_guidance) == ("text_first", 1.5, 4.5)
    asked = {"prompt": "a", "input_fidelity": "high"}
    assert read_fields(asked).over(Sampling()) == close
    own = read_fields(asked | {"guidance_scale": 7.0}).over(Sampling())
    assert (own.guidance_mode, own.guidance, own.image_guidance) == ("joint", 7.0, None)
    distilled = Sampling(guidance=1.0, image_guidance=1.0, guidance_mode="text_first")
    only = read_fields(asked).over(distilled)
    assert (only.guidance_mode, only.guidance, only.image_guidance) == ("text_first", 1.0, 1.5)


def test_the_answer_says_what_was_made_and_how_much(running, client) -> None:
    out = client.images.edit(
        image=[photo(), photo()], prompt="a robot", n=10, size="24x16", quality="low", input_fidelity="high"
    )
    assert len(out.data) == 10
    assert (out.size, out.quality, out.background, out.output_format) == ("24x16", "low", "opaque", "png")
    used = out.usage
    assert (used.input_tokens_details.image_tokens, used.output_tokens) == (2 * 6, 10 * 6)
    assert used.total_tokens == used.input_tokens + used.output_tokens
    assert sampling(running).steps == 10
    assert sampling(running).guidance_mode == "text_first"


@pytest.mark.parametrize(("kind", "quality"), [("jpeg", 0), ("jpeg", 90), ("webp", 40)])
def test_pictures_come_in_the_format_that_is_asked_for(kind, quality, client) -> None:
    asked = {"prompt": "a", "output_format": kind, "output_compression": quality, "extra_body": {"seed": 3}}
    made = [client.images.generate(**asked, response_format=form).data[0] for form in ("b64_json", "url")]
    answer = httpx.get(made[1].url)
    assert answer.headers["content-type"] == f"image/{kind}"
    assert answer.content == base64.b64decode(made[0].b64_json)
    picture = decoded(made[0].b64_json)
    assert picture.format == kind.upper()
    assert picture.getexif()[ExifTags.Base.Software] == MARK
    exact = picture_of("a", 3).getpixel((0, 0))
    error = max(abs(a - b) for a, b in zip(picture.getpixel((0, 0)), exact, strict=True))
    assert error < (60 if quality == 0 else 8)
    assert httpx.get(made[1].url.replace(f".{kind}?", ".png?")).status_code == 404


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_other_formats_are_signed_too(kind, serve, tmp_path) -> None:
    signer = make_signer(tmp_path)
    running = serve(service={"seal": seal_of(signer.files, "toybox")})
    with running.client() as client:
        asked = {"prompt": "a", "output_format": kind}
        (row,) = client.post("/v1/images/generations", json=asked).json()["data"]
    signed = base64.b64decode(row["b64_json"])
    state, _ = read_manifest(signed, signer.root)
    assert (state, media_type(signed)) == ("Trusted", f"image/{kind}")


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"background": "transparent"}, "background", "cut the subject out afterwards"),
        ({"output_format": "gif"}, "output_format", "PNG, JPEG or WebP"),
        ({"output_compression": 50}, "output_compression", "PNGs lose nothing"),
        ({"stream": True, "response_format": "url"}, "stream", "must be b64_json"),
        ({"extra_body": {"input_fidelity": "high"}}, "input_fidelity", "none is given"),
        ({"partial_images": 4}, "partial_images", "between 0 and 3"),
        ({"n": 17}, "n", "between 1 and 16"),
        ({"svg": {"model": "x"}}, "svg", "PNG, JPEG or WebP"),
        ({"frame_count": 3}, "frame_count", "PNG, JPEG or WebP"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(fields, param, reason, client) -> None:
    with pytest.raises(openai.BadRequestError, match=reason) as refused:
        client.images.generate(prompt="a", **fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("name", "reason"), [("mask", "goes into reference_mask"), ("markup", "say in the prompt")]
)
def test_pictures_over_a_reference_are_refused_with_their_reason(name, reason, client) -> None:
    with pytest.raises(openai.BadRequestError, match=reason) as refused:
        client.images.edit(image=photo(), prompt="a", **{name: photo()})
    assert refused.value.param == name


def test_hints_that_nothing_here_acts_on_change_nothing(running, client) -> None:
    client.images.generate(prompt="a")
    plain = sampling(running)
    client.images.generate(
        prompt="a",
        user="u",
        safety_identifier="s",
        moderation="low",
        style="vivid",
        complexity="high",
        background="auto",
        partial_images=2,
    )
    assert sampling(running) == plain


def test_a_streamed_edit_shows_rough_pictures_and_then_the_finished_ones(serve) -> None:
    running = serve(FakeRunner(step_seconds=0.02))
    asked = {"image": photo(), "prompt": "a robot", "n": 2, "quality": "low", "output_format": "webp"}
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
        events = list(client.images.edit(**asked, stream=True, partial_images=2, extra_body={"seed": 5}))
        whole = client.images.edit(**asked, extra_body={"seed": 5})
    for number in range(2):
        own = [event for event in events if event.seed == 5 + number]
        *rough, done = own
        assert isinstance(done, ImageEditCompletedEvent)
        assert done.b64_json == whole.data[number].b64_json
        assert (done.size, done.quality, done.output_format) == ("16x16", "low", "webp")
        assert (done.usage.input_tokens_details.image_tokens, done.usage.output_tokens) == (4, 4)
        assert [event.partial_image_index for event in rough] == [0, 1]
        for event in rough:
            assert isinstance(event, ImageEditPartialImageEvent)
            assert decoded(event.b64_json).size == (SIDE, SIDE)
            assert decoded(event.b64_json).getexif()[ExifTags.Base.Software] == MARK


def test_a_streamed_generation_without_rough_pictures_decodes_none(running, client) -> None:
    (done,) = client.images.generate(prompt="a", stream=True, partial_images=0, extra_body={"seed": 1})
    assert isinstance(done, ImageGenCompletedEvent)
    assert decoded(done.b64_json).tobytes() == picture_of("a", 1).tobytes()
    assert not running.runner.calls[0].previews
    *rough, done = client.images.generate(prompt="a", stream=True, partial_images=3)
    assert all(isinstance(event, ImageGenPartialImageEvent) for event in rough)
    assert running.runner.calls[1].previews


def test_rough_pictures_are_spread_over_the_steps_that_are_decoded() -> None:
    assert due_steps(25, 3) == [5, 14, 20]
    assert due_steps(25, 1) == [14]
    assert due_steps(5, 3) == [2]
    assert due_steps(25, 0) == due_steps(2, 3) == []


def test_what_fails_in_a_stream_is_said_there_and_counted(running, client) -> None:
    with pytest.raises(openai.APIError, match="The prompt is no good") as failed:
        list(client.images.generate(prompt="fail", stream=True))
    assert failed.value.code == "failed"
    assert 'jedi_rejects_total{code="failed"} 1.0' in httpx.get(f"{running.url}/metrics").text
    with pytest.raises(openai.BadRequestError):  # before the stream begins
        client.images.generate(prompt="a", stream=True, size="17x16")


def test_a_client_that_hangs_up_on_a_stream_cancels_its_job(serve) -> None:
    running = serve(FakeRunner(step_seconds=0.02))
    body = {"prompt": "a", "steps": 1000, "stream": True, "partial_images": 1}
    with running.client() as client:
        with client.stream("POST", "/v1/images/generations", json=body) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert running.engine.unfinished == 1
        end = time.monotonic() + 10
        while running.engine.unfinished:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert running.runner.steps < 900


def test_jobs_refuse_streams_and_keep_formats(running) -> None:
    with running.client() as client:
        refused = client.post("/v1/jobs", data={"prompt": "a", "stream": "true"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "stream")
        address = client.post("/v1/jobs", data={"prompt": "a", "output_format": "webp"}).headers["location"]
        while (state := client.get(address).json())["state"] != "done":
            time.sleep(0.01)
        assert client.get(state["pictures"][0]["url"]).headers["content-type"] == "image/webp"


@pytest.mark.slow
def test_the_node_client_edits_and_streams(serve, tmp_path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no npm here")
    packed = subprocess.run(
        ["npm", "pack", NODE, "--silent"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    if packed.returncode != 0:
        pytest.skip(f"npm cannot fetch {NODE}")
    subprocess.run(["tar", "xzf", packed.stdout.strip()], cwd=tmp_path, check=True)
    (tmp_path / "photo.png").write_bytes(photo()[1])
    running = serve(FakeRunner(step_seconds=0.02))
    script = tmp_path / "client.mjs"
    script.write_text(
        f"""
import fs from "node:fs";
import OpenAI from "./package/index.mjs";
const client = new OpenAI({{ baseURL: "{running.url}/v1", apiKey: "none", maxRetries: 0 }});
const image = () => fs.createReadStream("photo.png");
const edit = {{ image: image(), prompt: "a robot", n: 2, quality: "low", output_format: "jpeg" }};
const whole = await client.images.edit(edit);
const types = [];
const asked = {{ image: [image(), image()], prompt: "a", quality: "low", stream: true, partial_images: 1 }};
for await (const event of await client.images.edit(asked)) types.push(event.type);
const stream = await client.images.generate({{ prompt: "a", stream: true }});
for await (const event of stream) types.push(event.type);
const models = [];
for await (const model of await client.models.list()) models.push(model.id);
let refused;
try {{ await client.images.generate({{ prompt: "a", background: "transparent" }}); }}
catch (error) {{ refused = [error.status, error.param]; }}
const [pictures, format] = [whole.data.length, whole.output_format];
console.log(JSON.stringify({{ pictures, format, types, models, refused }}));
"""
    )
    done = subprocess.run(["node", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "pictures": 2,
        "format": "jpeg",
        "types": ["image_edit.partial_image", "image_edit.completed", "image_generation.completed"],
        "models": ["toybox"],
        "refused": [400, "background"],
    }
