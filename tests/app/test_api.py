"""The API as its clients use it: OpenAI's own client, jobs with events, health, metrics, description."""

import base64
import io
import json
import re
import time

import httpx
import jsonschema_rs
import numpy as np
import openai
import pytest
from PIL import Image

from jedi_diffusion.app.application import Access
from jedi_diffusion.pictures import PARAMETERS_KEY, SOFTWARE_KEY
from tests.helpers.fake_runners import SIDE, FakeRunner, picture_of


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
    running = serve(service={"unknown_words": lambda prompts: ["zebra"], "cut_off": lambda prompts: prompts})
    with running.client() as client:
        answer = client.post("/v1/images/generations", json={"prompt": "a zebra"}).json()
    assert "zebra" in answer["warnings"][0]
    assert answer["warnings"][1] == "a zebra"


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


def test_the_description_says_what_is_answered_and_how_to_give_a_token(serve) -> None:
    with serve(access=Access(tokens=("good",))).client() as client:
        schema = client.get("/openapi.json", headers={"Authorization": "Bearer good"}).json()
        jsonschema_rs.meta.validate(schema["components"]["schemas"]["Images"])
        for path, methods in schema["paths"].items():
            for operation in methods.values():
                good = [each for status, each in operation["responses"].items() if status[0] == "2"]
                assert all(each["content"] for each in good), path
                refused = operation["responses"]["413"]["content"]["application/json"]["schema"]
                assert refused == {"$ref": "#/components/schemas/Failure"}
        schemes = schema["components"]["securitySchemes"]
        assert [each["scheme"] for each in schemes.values()] == ["bearer", "basic"]
        assert schema["security"] == [{name: []} for name in schemes]
        assert schema["paths"]["/healthz"]["get"]["security"] == []


def test_answers_are_as_the_description_says(running) -> None:
    with running.client() as client:
        schema = client.get("/openapi.json").json()
        job = client.post("/v1/jobs", data={"prompt": "a"})
        answers = {
            ("/v1/images/generations", "post"): client.post("/v1/images/generations", json={"prompt": "a"}),
            ("/v1/jobs", "post"): job,
            ("/v1/jobs/{identifier}", "get"): client.get(job.headers["location"]),
            ("/v1/models", "get"): client.get("/v1/models"),
            ("/v1/models/{name}", "get"): client.get("/v1/models/toybox"),
            ("/readyz", "get"): client.get("/readyz"),
            ("/v1/images/edits", "post"): client.post("/v1/images/edits", data={"prompt": "a"}),
        }
    for (path, method), answer in answers.items():
        responses = schema["paths"][path][method]["responses"]
        said = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
        jsonschema_rs.validate({**said, "components": schema["components"]}, answer.json())


def test_null_is_a_field_that_is_not_given(running) -> None:
    names = ["n", "size", "response_format", "background", "output_format", "steps", "quality", "stream"]
    names += ["seed", "model", "user"]
    with running.client() as client, openai_client(running) as typed:
        body = {"prompt": "a", **dict.fromkeys(names)}
        assert client.post("/v1/images/generations", json=body).status_code == 200
        answer = client.post("/v1/images/generations", json={"prompt": None})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")
        assert typed.images.generate(prompt="a", n=None, size=None).data


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ('name="image"\r\nContent-Type: image/png', 200),
        ("name=\"image\"; filename*=UTF-8''k%C3%BCche.png", 200),
        ("name=\"image\"; filename*=utf-8''a%22b.png\r\nContent-Type: image/png", 200),
        ('name="image"', 400),
        ('name="mask"; filename="a.png"', 400),
        ('name="image[0]"; filename="a.png"', 400),
        ('name="images"; filename="a.png"', 400),
        ('name="steps"; filename="a.png"', 400),
    ],
)
def test_parts_of_a_form_are_told_apart_as_clients_write_them(head, status, running) -> None:
    parts = [b'Content-Disposition: form-data; name="prompt"\r\n\r\na cow']
    parts.append(f"Content-Disposition: form-data; {head}\r\n\r\n".encode() + png(1))
    body = b"".join(b"--X\r\n" + part + b"\r\n" for part in parts) + b"--X--\r\n"
    with running.client() as client:
        kind = {"Content-Type": "multipart/form-data; boundary=X"}
        answer = client.post("/v1/images/edits", content=body, headers=kind)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert running.runner.calls[0].references[0].tobytes() == opened(png(1)).tobytes()
    else:
        said = answer.json()["error"]["message"]
        name = head.split('"')[1]
        expected = {"image": "must be a file", "steps": "must be text"}.get(name, "not supported here")
        assert expected in said
        assert name in said


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
        ours = {"Authorization": "Bearer good"}
        asked = {"prompt": "a", "response_format": "url"}
        (row,) = client.post("/v1/images/generations", json=asked, headers=ours).json()["data"]
        assert opened(client.get(row["url"]).content).size == (SIDE, SIDE)
        bare, _, key = row["url"].partition("?key=")
        assert client.get(bare).status_code == 401
        assert client.get(f"{bare}?key=").status_code == 404
        assert client.get(f"{bare}?key={key}x").status_code == 404
        assert client.delete(row["url"]).status_code == 401
        assert client.get(f"{bare.rsplit('/', 2)[0]}?key={key}").status_code == 401
        address = client.post("/v1/jobs", data={"prompt": "a"}, headers=ours)
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


def test_refusals_can_be_read_by_web_sites_and_are_counted(serve) -> None:
    """Of the gate too: in the API's shape, with the headers without which a browser shows a page nothing."""
    friend = {"Origin": "https://friend.example"}
    running = serve(access=Access(tokens=("good",), origins=(friend["Origin"],)))
    ours = friend | {"Authorization": "Bearer good"}
    with running.client() as client:
        kind, large = {"Content-Type": "application/json"}, b"x" * (2**20 + 1)
        answers = [
            client.get("/v1/models", headers=friend),
            client.post("/v1/images/generations", headers=ours | kind, content=large),
            client.post("/v1/images/generations", headers=ours | kind, content=iter([large])),
            client.post("/v1/chat/completions", headers=ours),
            client.post("/v1/images/generations/", headers=ours),
            client.get("/v1/jobs/nobody", headers=ours),
            client.get("/v1/images/edits", headers=ours),
        ]
        codes = ["invalid_api_key", "too_large", "too_large", *["not_found"] * 3, "method_not_allowed"]
        assert [answer.json()["error"]["code"] for answer in answers] == codes
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] == friend["Origin"], answer.url
        asks = friend | {"Access-Control-Request-Method": "POST"}
        asks["Access-Control-Request-Headers"] = "authorization"
        first = client.options("/v1/images/edits", headers=asks)
        assert (first.status_code, "authorization" in first.headers["access-control-allow-headers"]) == (
            200,
            True,
        )
        evil = client.get("/v1/models", headers={"Origin": "https://evil.example"})
        assert (evil.status_code, evil.json()["error"]["code"]) == (403, "forbidden")
        assert "access-control-allow-origin" not in evil.headers
        text = client.get("/metrics", headers=ours).text
        for code in {*codes, "forbidden"}:
            count = [*codes, "forbidden"].count(code)
            assert f'jedi_rejects_total{{code="{code}"}} {count}.0' in text


def test_faults_can_be_read_by_web_sites_and_are_counted_once(serve, monkeypatch, caplog) -> None:
    """What nobody expected is answered in the same shape, and says nothing of the machine."""
    friend = {"Origin": "https://friend.example"}
    running = serve(access=Access(origins=(friend["Origin"],)))

    def broken(*_: object) -> None:
        raise RuntimeError("a secret of the machine")

    with running.client() as client:
        job = client.post("/v1/jobs", data={"prompt": "a"}).json()["id"]
        monkeypatch.setattr(running.engine, "seconds_left", broken)
        answer = client.get(f"/v1/jobs/{job}", headers=friend)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "failed")
        assert answer.json()["error"]["type"] == "server_error"
        assert "secret" not in answer.text
        assert answer.headers["access-control-allow-origin"] == friend["Origin"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert 'jedi_rejects_total{code="failed"} 1.0' in client.get("/metrics").text
        # In the midst of an answer: it ends broken, so that nobody takes it for whole.
        stream = {"Accept": "text/event-stream"}
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"/v1/jobs/{job}", headers=stream)
        assert 'jedi_rejects_total{code="failed"} 2.0' in client.get("/metrics").text
    assert [each.message for each in caplog.records if each.name.endswith("failures")] == [
        "A request failed."
    ] * 2


@pytest.mark.parametrize("strips", [True, False], ids=["proxy strips", "proxy passes on"])
def test_behind_a_proxy_under_a_path(strips, serve) -> None:
    running = serve(access=Access(tokens=("good",), root_path="/jedi"))
    before = "" if strips else "/jedi"
    with running.client(headers={"Authorization": "Bearer good"}) as client:
        job = client.post(f"{before}/v1/jobs", data={"prompt": "a"})
        assert job.headers["location"].startswith("/jedi/v1/jobs/")
        asked = {"prompt": "a", "response_format": "url"}
        (row,) = client.post(f"{before}/v1/images/generations", json=asked).json()["data"]
        assert row["url"].startswith(f"{running.url}/jedi/v1/jobs/")
        assert client.get(f"{before}/", follow_redirects=False).headers["location"] == "docs"
        assert "/jedi" in str(client.get(f"{before}/openapi.json").json()["servers"])
    with running.client() as client:
        assert client.get(f"{before}/healthz").status_code == 200
        assert client.get(row["url"].replace("/jedi", before)).status_code == 200


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
