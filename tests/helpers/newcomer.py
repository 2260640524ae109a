"""A newcomer: an environment with the built wheel, away from the checkout, where a page's blocks are run."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(\.venv/bin/)?(jedi|python|pip|git|curl|make|torchrun|ray|apt-get)\b|\w+=")
READY_SECONDS = 600


class Block(NamedTuple):
    """A fenced block of a page; `lines` of a shell block are whole commands without comments."""

    kind: str
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def blocks_of(page: Path) -> list[Block]:
    """What a reader of the page would run, in order: shell commands and Python."""
    text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = []
    for indent, language, body in BLOCK.findall(text):
        body = re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        if language == "python":
            found.append(Block("python", body))
        elif not language:
            whole = re.sub(r"\s+#\s.*$", "", re.sub(r"\\\n\s*", "", body), flags=re.MULTILINE)
            if COMMAND.match(whole):
                found.append(Block("shell", whole))
    return found


def build_wheel(folder: Path) -> Path:
    """The project's wheel, by `build`."""
    words = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(folder: Path, wheel: Path) -> Path:
    """A virtual environment with the wheel alone that also sees what is installed here; its `bin`."""
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if path.endswith("-packages")]
    (packages / "others.pth").write_text("\n".join(seen) + "\n")  # lines of their own .pth files do not count
    words = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--no-deps"]
    done = subprocess.run([*words, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Newcomer:
    """Someone with the environment's `jedi` and `python`, at work in `folder`."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.folder = folder
        self.settings = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "HF_HUB_OFFLINE": "1",
        }
        self.server: subprocess.Popen[str] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def shell(self, line: str) -> str:
        """What a command prints. Fails with what it said where its exit status is not 0."""
        line = line.replace(".venv/bin/", "")
        done = self._run("bash", "-e", "-o", "pipefail", "-c", line)
        assert done.returncode == 0, f"{line}\nended with {done.returncode}:\n{done.stderr[-2000:]}"
        return done.stdout

    def python(self, text: str) -> str:
        done = self._run("python", "-W", "ignore", "-c", text)
        assert done.returncode == 0, f"{text}\nfailed:\n{done.stderr[-2000:]}"
        return done.stdout

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=self.folder, env=self.settings, capture_output=True, text=True)

    def serve(self, line: str, port: int) -> None:
        """Start a server and wait until it answers."""
        self.server = subprocess.Popen(shlex.split(line), cwd=self.folder, env=self.settings, text=True)
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5)
                return
            except OSError:
                assert self.server.poll() is None, f"{line} ended with {self.server.returncode}"
                assert time.monotonic() < end, f"{line} does not answer"
                time.sleep(0.5)

    def leave(self) -> None:
        """End a server as Ctrl-C does."""
        if self.server is not None:
            server, self.server = self.server, None
            server.send_signal(signal.SIGINT)
            try:
                assert server.wait(60) in (0, 130)
            finally:
                server.kill()
