"""Servers on loopback, in threads of the test's own process."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from fakes import CARD, FakeRunner
from servers import Running

from jedi_diffusion.app.application import Access, make_application
from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.jobs import Runner
from jedi_diffusion.app.server import Server, open_socket
from jedi_diffusion.app.service import Service


@pytest.fixture(autouse=True)
def event_loop_of_the_thread() -> Iterator[None]:
    """gradio puts an event loop of its own in the place of the thread's, and leaves it open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    with contextlib.suppress(RuntimeError):  # asyncio.run leaves the thread without one
        asyncio.get_event_loop().close()
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Starts a server over a fake runner. service: settings of `Service`; page: from a service to what mounts
    a page; runners: in the place of the fake one; settings: of `Engine`."""
    made: list[Running] = []

    def start(
        runner: FakeRunner | None = None,
        access: Access | None = None,
        service: dict | None = None,
        page: Callable | None = None,
        runners: Sequence[Runner] = (),
        grace: float = 0.2,
        **settings: object,
    ) -> Running:
        runner = runner or FakeRunner()
        engine = Engine(runners or [runner], **settings)
        served = Service(engine, CARD, **(service or {}))
        app = make_application(served, access, page and page(served))
        server = Server(app, engine, grace)
        listening = open_socket("127.0.0.1", 0)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        made.append(Running(url, engine, runner, server, thread))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        return made[-1]

    yield start
    for each in made:
        each.runner.gate.set()
        each.stop()


@pytest.fixture
def running(serve: Callable[..., Running]) -> Running:
    return serve()
