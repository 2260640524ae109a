"""A server in a thread of the test's own process."""

import threading
from dataclasses import dataclass

import httpx

from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.page import Page
from jedi_diffusion.app.server import Server
from tests.helpers.fake_runners import FakeRunner


@dataclass
class Running:
    """A server that listens, and what is behind it."""

    url: str
    engine: Engine
    runner: FakeRunner
    server: Server
    thread: threading.Thread
    page: Page | None = None

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def client(self, **settings: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **settings)
