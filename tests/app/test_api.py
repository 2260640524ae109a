"""The API as its clients use it: OpenAI's own client, jobs with events, health, metrics, description."""

import base64
import io
import json
import re
import time

import httpx
import numpy as np
import openai
import pytest
from fakes import SIDE, FakeRunner, picture_of
from PIL import Image

from jedi_diffusion.app.application import Access
from jedi_diffusion.pictures import PARAMETERS_KEY, SOFTWARE_KEY


def png(seed: int, side: int = SIDE) -> bytes:
    values = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(values).save(data, format="PNG")
    return data.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def openai_client(running, **settings: object) -> openai.OpenAI:
    return openai.OpenAI(
        **{"base_url": f"{running.url}/v1", "api_key": "none", "max_retries": 0, "timeout": 30} | settings
    )


def test_openai_client_edits_with_one_reference(running) -> None:
    with openai_client(running) as client:
        out = client.images.edit(
            image=("robot.png", png(1)),
            prompt="a robot",
            n=2,
            size="16x16",
            extra_body={"seed": 5, "steps": 3},
        )
    for number, row in enumerate(out.data):
        picture = opened(base64.b64decode(row.b64_json))
        expected = picture_of("a robot", 5 + number, (opened(png(1)),))
        assert picture.convert("RGB").tobytes() == expected.tobytes()
        parameters = json.loads(picture.info[PARAMETERS_KEY])
        assert (parameters["seed"], parameters["options"]["steps"]) == (5 + number, 3)
        assert picture.info[SOFTWARE_KEY] == "made with jedi-diffusion, model toybox"
        assert row.seed == 5 + number
    assert running.runner.calls[0].sampling.steps == 3


def test_openai_client_edits_with_many_references(running) -> None:
    photos = [png(1), png(2), png(3)]
    with openai_client(running) as client:
        out = client.images.edit(
            image=[(f"{number}.png", photo) for number, photo in enumerate(photos)],
            prompt="a robot",
            model="toybox",
            extra_body={"seed": 1, "reference_prompt": ["a", "b", "c"], "guidance_mode": "text_first"},
        )
    picture = opened(base64.b64decode(out.data[0].b64_json))
    expected = picture_of("a robot", 1, tuple(opened(photo) for photo in photos))
    assert picture.tobytes() == expected.tobytes()
    (call,) = running.runner.calls
    assert call.captions == ("a", "b", "c")
    assert call.sampling.guidance_mode == "text_first"


def test_openai_client_generates_without_reference(running) -> None:
    with openai_client(running) as client:
        out = client.images.generate(prompt="a dog", n=1, response_format="url", size="24x16")
        data = httpx.get(out.data[0].url).content
        names = [each.id for each in client.models.list()]
        assert client.models.retrieve("toybox").id == "toybox"
    assert opened(data).size == (24, 24)  # the fake's pictures are square
    assert names == ["toybox"]
    (call,) = running.runner.calls
    assert (call.sampling.width, call.sampling.height, call.references) == (24, 16, ())


def test_errors_reach_the_openai_client_as_its_own(running) -> None:
    with openai_client(running) as client:
        with pytest.raises(openai.BadRequestError) as wrong:
            client.images.generate(prompt="a", size="17x16")
        assert wrong.value.param == "size"
        assert wrong.value.type == "invalid_request_error"
        assert "multiple of 8" in wrong.value.message
        with pytest.raises(openai.NotFoundError) as unknown:
            client.images.generate(prompt="a", model="dall-e-3")
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.InternalServerError) as broken:
            client.images.generate(prompt="crash")
        assert "secret" not in str(broken.value)


def test_an_edit_that_fails_says_where_its_finished_pictures_are(serve) -> None:
    running = serve(FakeRunner(step_seconds=0.02))
    with running.client() as client:
        form = {"prompt": "a robot", "n": "8", "seed": "3", "steps": "5", "deadline": "0.5"}
        answer = client.post("/v1/images/edits", data=form, files={"image": png(1)})
        assert answer.status_code == 504
        error = answer.json()["error"]
        assert error["code"] == "deadline"
        assert 1 <= len(error["done"]) < 8
        for number, row in enumerate(error["done"]):
            expected = picture_of("a robot", 3 + number, (opened(png(1)),))
            assert opened(client.get(row["url"]).content).tobytes() == expected.tobytes()
        state = client.get(f"/v1/jobs/{error['job']}").json()
        assert [bool(row["url"]) for row in state["pictures"]] == [True] * len(error["done"]) + [False] * (
            8 - len(error["done"])
        )


def test_words_that_the_model_does_not_know_are_named(serve) -> None:
    running = serve(service={"unknown_words": lambda prompts: ["zebra"]})
    with running.client() as client:
        answer = client.post("/v1/images/generations", json={"prompt": "a zebra"}).json()
    assert "zebra" in answer["warnings"][0]


def events_of(response: httpx.Response) -> list[tuple[str, dict]]:
    found = []
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def test_jobs_report_progress_as_events(serve) -> None:
    running = serve(FakeRunner(step_seconds=0.01))
    with running.client() as client:
        form = {"prompt": "a robot", "n": "2", "seed": "3", "steps": "5"}
        answer = client.post("/v1/jobs", data=form, files={"image": png(1)})
        assert answer.status_code == 202
        address = answer.headers["location"]
        with client.stream("GET", address, headers={"Accept": "text/event-stream"}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            events = events_of(stream)
        names = [name for name, _ in events]
        assert names == ["progress"] * (len(names) - 1) + ["done"]
        shares = [state["progress"] for _, state in events]
        assert shares == sorted(shares)
        assert len(set(shares)) > 3
        state = client.get(address).json()
        assert (state["state"], state["seconds_left"]) == ("done", 0)
        for number, row in enumerate(state["pictures"]):
            expected = picture_of("a robot", 3 + number, (opened(png(1)),))
            assert opened(client.get(row["url"]).content).tobytes() == expected.tobytes()
        assert client.get(f"{address}/pictures/2.png").status_code == 404
        assert client.get(f"{address}/pictures/-1.png").status_code == 404


def test_delete_cancels(running) -> None:
    running.runner.gate.clear()
    with running.client() as client:
        address = client.post("/v1/jobs", data={"prompt": "a", "steps": "1000"}).headers["location"]
        assert running.runner.at_gate.wait(10)
        assert client.delete(address).json()["state"] == "cancelled"
        assert client.get(f"{address}/pictures/0.png").status_code == 400
        assert client.get("/v1/jobs/nobody").status_code == 404
        running.runner.gate.set()
        assert client.post("/v1/images/generations", json={"prompt": "b"}).status_code == 200
    assert running.runner.steps <= 2 + 25


def test_health_and_metrics(running) -> None:
    with running.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").status_code == 200
        client.post("/v1/images/generations", json={"prompt": "a", "n": 3})
        client.post("/v1/images/generations", json={"prompt": "a", "steps": 0})
        text = client.get("/metrics").text
        assert "jedi_pictures_total 3.0" in text
        assert 'jedi_rejects_total{code="bad_request"} 1.0' in text
        assert 'jedi_job_seconds_count{state="done"} 1.0' in text
        assert "jedi_queue_pictures 0.0" in text


def test_the_description_needs_nothing_from_outside(running) -> None:
    with running.client() as client:
        page = client.get("/docs").text
        assert not re.search(r"<script|<link|src=|@import|https?://", page)
        for word in ("/v1/images/edits", "guidance_scale", "1 to 1000"):
            assert word in page
        schema = client.get("/openapi.json").json()
        assert "image" in str(schema["paths"]["/v1/images/edits"]["post"]["requestBody"])
        assert client.get("/", follow_redirects=True).text == page


def test_a_token_is_asked_for_where_one_is_set(serve) -> None:
    running = serve(access=Access(tokens=("good", "other")))
    with openai_client(running) as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    with openai_client(running, api_key="good") as client:
        assert client.models.list()
    with running.client() as client:
        assert client.get("/healthz").status_code == 200
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/"):
            answer = client.get(path)
            assert (answer.status_code, "Bearer" in answer.headers["www-authenticate"]) == (401, True)
        basic = base64.b64encode(b"anyone:other").decode()
        assert client.get("/metrics", headers={"Authorization": f"Basic {basic}"}).status_code == 200
        for wrong in ("Bearer", "Bearer goo", "Basic !", "Bearer gööd", "Digest good"):
            assert client.get("/metrics", headers={"Authorization": wrong.encode()}).status_code == 401
        address = client.post("/v1/jobs", data={"prompt": "a"}, headers={"Authorization": "Bearer good"})
        assert (
            client.get(address.headers["location"], headers={"Authorization": "Bearer other"}).status_code
            == 404
        )


def test_other_web_sites_are_kept_out(serve) -> None:
    running = serve(access=Access(hosts=("127.0.0.1",), origins=("https://friend.example",)))
    with running.client() as client:
        assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
        assert client.get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 403
        assert client.get("/v1/models", headers={"Origin": running.url}).status_code == 200
        friend = client.get("/v1/models", headers={"Origin": "https://friend.example"})
        assert friend.headers["access-control-allow-origin"] == "https://friend.example"
    with serve().client() as client:
        assert "access-control-allow-origin" not in client.get("/v1/models").headers


def test_shutdown_finishes_what_is_queued(serve) -> None:
    running = serve(FakeRunner(step_seconds=0.01), grace=20)
    with running.client() as client:
        address = client.post("/v1/jobs", data={"prompt": "a", "steps": "30"}).headers["location"]
        with client.stream("GET", address, headers={"Accept": "text/event-stream"}) as stream:
            running.server.should_exit = True
            assert events_of(stream)[-1][0] == "done"
    running.thread.join(10)
    assert not running.thread.is_alive()


def test_shutdown_returns_what_cannot_be_finished(serve) -> None:
    running = serve(FakeRunner(step_seconds=0.01), grace=0.3)
    with running.client() as client:
        started = time.monotonic()
        address = client.post("/v1/jobs", data={"prompt": "a", "steps": "1000"}).headers["location"]
        with client.stream("GET", address, headers={"Accept": "text/event-stream"}) as stream:
            running.server.should_exit = True
            name, state = events_of(stream)[-1]
        assert (name, state["error"]["code"]) == ("failed", "shutting_down")
        assert time.monotonic() - started < 5
