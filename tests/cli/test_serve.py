"""`jedi serve`: what is checked before a model is loaded, and the server as a process of its own."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
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


TOKEN = "y" * 16


@dataclass
class Served:
    """`jedi serve` in a process of its own. temporary: its folder for temporary files. log: its errors."""

    process: subprocess.Popen
    url: str
    temporary: Path
    log: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)

    def upload_photo(self) -> Path:
        """Where the page keeps a photo that was uploaded."""
        with self.client() as client:
            (photo,) = client.post("/gradio_api/upload", files={"files": ("a.png", b"photo")}).json()
        assert Path(photo).read_bytes() == b"photo"
        assert Path(photo).is_relative_to(self.temporary)
        return Path(photo)

    def ends(self) -> str:
        """What it has said once it has ended in order, and nothing of its visitors is left."""
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.log.read_text()
        assert "Stopped." in out
        assert list(self.temporary.glob("jedi-page-*")) == []
        return self.log.read_text()


@contextlib.contextmanager
def serving(model: Path, folder: Path, *options: object, open_files: int = 4096) -> Iterator[Served]:
    words = ["serve", "--model", model, "--port", "0", "--device", "cpu", "--batch", "1", *options]
    (temporary := folder / "temporary").mkdir(exist_ok=True)
    limited = ["sh", "-c", f'ulimit -n {open_files} && exec "$@"', "sh"]
    with (log := folder / "log").open("w") as errors:
        process = subprocess.Popen(
            [*limited, sys.executable, "-m", "jedi_diffusion", *map(str, words)],
            cwd=folder,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup leaves it ignored
            env={**os.environ, serve.TOKENS: TOKEN, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, log.read_text()
        yield Served(process, line.split(" at ")[1].split()[0], temporary, log)
    finally:
        process.kill()
        process.communicate()


ASK = {"prompt": "a robot", "steps": 2, "seed": 1}


def test_serves_until_it_is_told_to_stop(joint_model, tmp_path) -> None:
    abandoned = tmp_path / "temporary" / "jedi-page-of-a-killed-server"
    abandoned.mkdir(parents=True)
    (abandoned / "in-use.lock").touch()
    with serving(joint_model, tmp_path) as served:
        with served.client() as client:
            model = client.get("/v1/models").json()["data"][0]
            assert (model["id"], model["size"], len(model["fingerprint"])) == ("joint", 32, 64)
            first, again = (client.post("/v1/images/generations", json=ASK).json() for _ in range(2))
            assert first["data"] == again["data"]
            job = client.post("/v1/jobs", data={"prompt": "a robot", "steps": "900"})
            assert job.status_code == 202
        served.upload_photo()
        assert not abandoned.exists()
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        served.process.send_signal(signal.SIGINT)  # the second one does not wait for the job of 900 steps
        assert served.ends() == ""


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """As many as a test of many connections needs on its own side."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4096), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_open_files")
def test_a_flood_locks_nobody_out_and_fills_no_log_and_a_hangup_leaves_no_photo(
    joint_model, tmp_path
) -> None:
    """With 1,024 open files: 1,200 connections that stop inside a head, then 1,000 that are no HTTP."""
    lines = 100
    with serving(joint_model, tmp_path, "--log-lines", lines, open_files=1024) as served:
        port = int(served.url.rsplit(":", 1)[1])

        def connected() -> socket.socket:
            return socket.create_connection(("127.0.0.1", port), timeout=20)

        with served.client() as client, contextlib.ExitStack() as stack:
            for _ in range(1200):
                stack.enter_context(connected()).sendall(b"GET /v1/models HTTP/1.1\r\nHost: ")
            begun = time.monotonic()
            assert client.post("/v1/images/generations", json=ASK).status_code == 200
            waited = time.monotonic() - begun
            half_open = served.log.read_text()
            for _ in range(1000):
                with connected() as other:
                    other.sendall(b"no HTTP\r\n\r\n")
                    with contextlib.suppress(ConnectionResetError):
                        assert b" 400 " in other.recv(4096)
            assert client.post("/v1/images/generations", json=ASK).status_code == 200
        served.upload_photo()
        served.process.send_signal(signal.SIGHUP)
        log = served.ends()
    figures = f"{len(half_open)} bytes, then {len(log)} in {len(log.splitlines())} lines"
    print(f"answer after {waited:.2f} s; log: {figures}")
    assert half_open == ""
    assert "Invalid HTTP request" in log
    assert "lines of the log were left out" in log
    assert log.count("\n") <= 2 * (lines + 1)  # it takes less than two minutes
