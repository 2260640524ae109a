"""`jedi serve`: what is checked before a model is loaded, and the server as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from jedi_diffusion import models
from jedi_diffusion.cli import serve


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        pytest.fail("the model was loaded before the request was checked")

    monkeypatch.setattr(models, "load_model", load)


@pytest.mark.usefixtures("no_model")
def test_a_port_that_is_taken_names_a_free_one(jedi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = jedi("serve", "--port", port)
        assert done.status == 1
        assert f"Port {port} is taken" in done.err
        other = int(done.err.rsplit(maxsplit=1)[1].rstrip("."))
        socket.create_server(("127.0.0.1", other)).close()


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", 70000), "--port is 70000"),
        (("--port", -1), "--port is -1"),
        (("--host", "not a host"), "--host not a host"),
        (("--host", "192.0.2.1"), "not an address of this machine"),
        (("--queue", 0), "--queue is 0"),
        (("--max-pixels", 1), "--max-pixels is 1"),
        (("--max-seconds", 0), "--max-seconds is 0"),
        (("--keep-mb", 0), "--keep-mb is 0"),
        (("--root-path", "jedi/"), "must look like /jedi"),
        (("--deadline", "nan"), "--deadline is nan"),
        (("--token-file", "/nonexistent"), "/nonexistent"),
        (("--model", "no such model"), "no such model"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(words, said, jedi) -> None:
    done = jedi("serve", *words)
    assert done.status in (1, 2)
    assert said in done.err


def test_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# ours\n" + "a" * 16 + "\n\n" + "b" * 20 + " \n")
    assert serve.read_tokens(str(path), "") == ["a" * 16, "b" * 20]
    assert serve.read_tokens(None, "c" * 16 + ", " + "d" * 16) == ["c" * 16, "d" * 16]
    assert serve.read_tokens(None, " ") == []
    for text, variable in (("# none", ""), ("", "short")):
        path.write_text(text)
        with pytest.raises(serve.UsageError):
            serve.read_tokens(str(path) if text else None, variable)


def test_a_warning_where_anybody_can_come_in(jedi, monkeypatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.delenv(serve.TOKENS, raising=False)
    monkeypatch.setattr(serve, "prepare", stop)
    assert "there is no token" in jedi("serve", "--host", "0.0.0.0", "--port", 0).err
    assert jedi("serve", "--port", 0).err == ""
    monkeypatch.setenv(serve.TOKENS, "x" * 16)
    assert jedi("serve", "--host", "0.0.0.0", "--port", 0).err == ""


@pytest.mark.parametrize("raised", [True, False])
def test_says_that_it_stopped_whether_or_not_uvicorn_raises_the_signal_anew(
    raised, jedi, monkeypatch
) -> None:
    def until_a_signal(*_: object, **__: object) -> None:
        if raised:
            raise KeyboardInterrupt

    serving = SimpleNamespace(run=until_a_signal), SimpleNamespace(name="a model")
    monkeypatch.setattr(serve, "prepare", lambda *_: serving)
    monkeypatch.setattr(serve, "show_faults_only", lambda: None)
    done = jedi("serve", "--port", 0)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[1:] == ["Stopped."]


def test_serves_until_it_is_told_to_stop(joint_model, tmp_path) -> None:
    words = ["serve", "--model", joint_model, "--port", "0", "--device", "cpu", "--batch", "1"]
    temporary = tmp_path / "temporary"
    abandoned = temporary / "jedi-page-of-a-killed-server"
    abandoned.mkdir(parents=True)
    (abandoned / "in-use.lock").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "jedi_diffusion", *map(str, words)],
        cwd=tmp_path,
        env={**os.environ, serve.TOKENS: "y" * 16, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, process.stderr.read()
        url = line.split(" at ")[1].split()[0]
        client = httpx.Client(base_url=url, headers={"Authorization": "Bearer " + "y" * 16}, timeout=60)
        with client:
            model = client.get("/v1/models").json()["data"][0]
            assert (model["id"], model["size"], len(model["fingerprint"])) == ("joint", 32, 64)
            ask = {"prompt": "a robot", "steps": 2, "seed": 1}
            first, again = (client.post("/v1/images/generations", json=ask).json() for _ in range(2))
            assert first["data"] == again["data"]
            job = client.post("/v1/jobs", data={"prompt": "a robot", "steps": "900"})
            assert job.status_code == 202
            (photo,) = client.post("/gradio_api/upload", files={"files": ("a.png", b"photo")}).json()
            assert Path(photo).read_bytes() == b"photo"
            assert Path(photo).is_relative_to(temporary)
            assert not abandoned.exists()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)  # the second one does not wait for the job of 900 steps
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert "Stopped." in out
        assert list(temporary.glob("jedi-page-*")) == []
    finally:
        process.kill()
        process.wait()
