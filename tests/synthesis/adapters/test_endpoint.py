"""Prompts from an OpenAI-compatible endpoint, against a real HTTP server that misbehaves on request."""

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.synthesis.adapters.endpoint import EndpointPromptWriter, EndpointSettings
from jedi_diffusion.synthesis.protocols import Failure
from tests.helpers.chat_server import Server, completion

KEY = "sk-very-secret"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def ask(server: Server, *requests: str, key: str | None = KEY, **settings: Any) -> list[str | Failure]:
    quick = {"model": "tiny", "timeout": 10.0, **settings}
    writer = EndpointPromptWriter(EndpointSettings(**quick), server.url, key)
    return writer.write(requests, range(len(requests)))


def test_answers_come_in_the_order_of_the_requests(server: Server) -> None:
    def script(handler: Any, trial: int, text: str) -> None:
        time.sleep(0.05 if text == "0" else 0)
        handler.reply(200, completion(f"you said {text}"))

    server.script = script
    asked = [str(number) for number in range(12)]
    assert ask(server, *asked, extra={"max_tokens": 9}) == [f"you said {text}" for text in asked]
    sent = next(body for body in server.bodies if body["messages"][0]["content"] == "7")
    assert sent == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "7"}],
        "temperature": 1.0,
        "seed": 7,
        "max_tokens": 9,
    }
    assert server.headers[0]["path"] == "/v1/chat/completions"
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_no_more_requests_than_allowed_run_at_once(server: Server) -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def script(handler: Any, trial: int, text: str) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1  # before the answer: the next request may come before this handler is done
        handler.reply(200, completion("yes"))

    server.script = script
    ask(server, *map(str, range(12)), concurrency=3)
    assert 2 <= most <= 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_passing_errors_are_tried_again(server: Server, status: int) -> None:
    server.script = lambda handler, trial, text: (
        handler.reply(status, b"busy") if trial < 3 else handler.reply(200, completion("at last"))
    )
    assert ask(server, "a") == ["at last"]
    assert server.trials["a"] == 3


def test_retry_after_is_honoured(server: Server) -> None:
    server.script = lambda handler, trial, text: (
        handler.reply(429, b"slow down", Retry_After="1", retry_after_ms="1000")
        if trial == 1
        else handler.reply(200, completion("now"))
    )
    assert ask(server, "a") == ["now"]
    assert server.times[1] - server.times[0] >= 1


def test_a_server_that_asks_for_too_long_a_wait_is_not_asked_again(server: Server) -> None:
    server.script = lambda handler, trial, text: handler.reply(
        429, b"tomorrow", Retry_After="3600", retry_after_ms="3600000"
    )
    assert ask(server, "a") == [Failure("HTTP 429: tomorrow")]
    assert server.trials["a"] == 1


def test_a_hang_ends_with_the_time_limit(server: Server) -> None:
    def script(handler: Any, trial: int, text: str) -> None:
        if text == "hang":
            server.stop.wait(20)
        handler.reply(200, completion("fine"))

    server.script = script
    begin = time.monotonic()
    stuck, fine = ask(server, "hang", "other", timeout=1, trials=2)
    assert time.monotonic() - begin < 8
    assert fine == "fine"
    assert isinstance(stuck, Failure)
    assert "ReadTimeout" in stuck.detail
    assert server.trials["hang"] == 2


def test_a_server_that_drips_is_not_waited_for_either(server: Server) -> None:
    def script(handler: Any, trial: int, text: str) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.stop.wait(0.05):
            handler.wfile.write(b" ")

    server.script = script
    assert ask(server, "a", timeout=1.5, trials=1) == [Failure("the answer took longer than 1.5 seconds")]


@pytest.mark.parametrize("text", [None, "", " \n", 3])
def test_an_answer_without_text_fails_alone(server: Server, text: object) -> None:
    server.script = lambda handler, trial, said: handler.reply(
        200, completion(text if said == "a" else "good")
    )
    assert ask(server, "a", "b") == [Failure("the answer has no text"), "good"]


def test_a_refused_request_fails_alone_and_at_once(server: Server) -> None:
    server.script = lambda handler, trial, text: (
        handler.reply(400, b'{"error": "too\nlong"}')
        if text == "a"
        else handler.reply(200, completion("good"))
    )
    assert ask(server, "a", "b") == [Failure('HTTP 400: {"error": "too long"}'), "good"]
    assert server.trials["a"] == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_unknown_model_stops_everything_and_shows_no_key(
    server: Server, status: int
) -> None:
    server.script = lambda handler, trial, text: handler.reply(
        status, f"no such model, or key {KEY}".encode()
    )
    with pytest.raises(
        ModelError, match=f"refuses all requests, HTTP {status}: no such model, or key \\*\\*\\*"
    ) as caught:
        ask(server, *map(str, range(50)), concurrency=1)
    assert KEY not in str(caught.value)
    assert sum(server.trials.values()) < 50


def test_redirects_are_not_followed(server: Server) -> None:
    server.script = lambda handler, trial, text: handler.reply(307, b"", Location="http://127.0.0.1:1/")
    (answer,) = ask(server, "a")
    assert answer == Failure("HTTP 307: ")


def test_no_server_at_all() -> None:
    gone = Server()
    gone.close()
    (answer,) = ask(gone, "a", trials=2)
    assert isinstance(answer, Failure)
    assert answer.detail.startswith("ConnectError")


def test_without_a_key_none_is_sent_and_the_fingerprint_shows_what_decides(server: Server) -> None:
    ask(server, "a", key=None)
    assert "authorization" not in server.headers[0]
    settings = EndpointSettings(model="tiny", temperature=0.5, extra={"top_p": 0.9})
    writer = EndpointPromptWriter(settings, server.url, KEY)
    host = server.url.removeprefix("http://").removesuffix("/v1")
    assert writer.fingerprint == f'tiny at {host} {{"temperature": 0.5, "top_p": 0.9}}'


def test_address_and_key_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EndpointSettings(model="tiny")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UsageError, match="OPENAI_BASE_URL is not set"):
        EndpointPromptWriter.from_environment(settings)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    writer = EndpointPromptWriter.from_environment(settings)
    assert writer.write(["hello"], [0]) == ["you said hello"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.headers[0]["path"] == "/v1/chat/completions"


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://host/v1", "http://", "http://me:pass@host/v1", "http://host:99999/v1", ""],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="http://host:port/v1") as caught:
        EndpointPromptWriter(EndpointSettings(model="tiny"), url)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk a", "sk\n\rb", "schl\u00fcssel"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as caught:
        EndpointPromptWriter(EndpointSettings(model="tiny"), "http://localhost/v1", key)
    assert key not in str(caught.value)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ModelError, match=r"pip install 'jedi-diffusion\[synthesis\]'"):
        EndpointPromptWriter(EndpointSettings(model="tiny"), "http://localhost/v1")


def test_waiting_requests_stop_when_one_shows_that_all_will_fail(server: Server) -> None:
    def script(handler: Any, trial: int, text: str) -> None:
        if text == "b":
            time.sleep(0.1)
        handler.reply(503 if text == "a" else 401, b"no", retry_after_ms="20000")

    server.script = script
    begin = time.monotonic()
    with pytest.raises(ModelError):
        ask(server, "a", "b")
    assert time.monotonic() - begin < 8


@pytest.mark.parametrize(
    "wrong", [{"model": ""}, {"trials": 0}, {"timeout": 0}, {"temperature": 3}, {"concurency": 4}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EndpointSettings(**{"model": "tiny", **wrong})


@pytest.mark.parametrize(
    "data",
    [b"{", b"", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}', b"\xff", b"[" * 100_000],
    ids=["cut", "empty", "list", "none", "null", "bytes", "deep"],
)
def test_an_answer_that_is_no_completion_fails_alone(server: Server, data: bytes) -> None:
    server.script = lambda handler, trial, text: handler.reply(
        200, data if text == "a" else completion("good")
    )
    answer, other = ask(server, "a", "b")
    assert other == "good"
    assert isinstance(answer, Failure)
    assert answer.detail.startswith("the answer is no chat completion: ")
    assert len(answer.detail) < 300


def test_an_answer_that_is_cut_off_is_tried_again(server: Server) -> None:
    server.script = lambda handler, trial, text: handler.reply(
        200, completion("whole"), **({"Content_Length": "4000"} if trial == 1 else {})
    )
    assert ask(server, "a", trials=2, timeout=2) == ["whole"]
    assert server.trials["a"] == 2
