"""Servers on loopback, in threads of the test's own process."""

import asyncio
import contextlib
import gc
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from PIL import Image

from jedi_diffusion.app.application import Access, make_application
from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.jobs import Runner
from jedi_diffusion.app.page import Page
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.app.server import Server, open_socket
from jedi_diffusion.app.service import Service
from jedi_diffusion.app.session import Example
from tests.helpers.fake_runners import CARD, FakeRunner
from tests.helpers.running_servers import Running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(autouse=True)
def event_loop_of_the_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close every event loop that gradio puts in the place of the thread's, and leaves open."""
    made: list[asyncio.AbstractEventLoop] = []
    new_event_loop = asyncio.new_event_loop

    def noted() -> asyncio.AbstractEventLoop:
        made.append(new_event_loop())
        return made[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", noted)
    asyncio.set_event_loop(asyncio.new_event_loop())
    yield
    with contextlib.suppress(RuntimeError):  # asyncio.run leaves the thread without one
        asyncio.get_event_loop().close()
    asyncio.set_event_loop(None)
    for loop in made:
        if not loop.is_running():
            loop.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Starts a server over a fake runner. service: settings of `Service`; page, tools: from a service to what
    mounts a page, tools; runners: in the place of the fake one; card: of the model; settings: of `Engine`."""
    made: list[Running] = []

    def start(
        runner: FakeRunner | None = None,
        access: Access | None = None,
        service: dict | None = None,
        page: Callable | None = None,
        tools: Callable | None = None,
        runners: Sequence[Runner] = (),
        grace: float = 0.2,
        card: ModelCard = CARD,
        **settings: object,
    ) -> Running:
        runner = runner or FakeRunner()
        engine = Engine(runners or [runner], **settings)
        served = Service(engine, card, **(service or {}))
        app = make_application(served, access, page and page(served), tools and tools(served))
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


class TwoExamples:
    """Subjects of one colour each."""

    def fixed(self) -> list[Example]:
        return [
            Example("a robot", Image.new("RGB", (16, 16), "red")),
            Example("a dog", Image.new("RGB", (16, 16))),
        ]

    def surprise(self, seed: int) -> Example:
        return Example("an owl", Image.new("RGB", (16, 16), "blue"))


def zebras(prompts: list[str]) -> list[str]:
    return ["zebra"] if any("zebra" in prompt for prompt in prompts) else []


@pytest.fixture
def served(serve: Callable[..., Running]) -> Iterator[Callable[..., Running]]:
    """Starts a server with the page, which knows no zebra; `page` are settings of `Page`."""
    pages: list[Page] = []

    def start(page: dict | None = None, **settings: object) -> Running:
        def mount(service: Service) -> Callable:
            pages.append(Page(service, TwoExamples(), **(page or {})))
            return pages[-1].mount

        running = serve(page=mount, service={"unknown_words": zebras}, **settings)
        running.page = pages[-1]
        return running

    yield start
    for each in pages:
        each.close()
    gc.collect()  # while these tests' filters hold


@pytest.fixture
def browser() -> Iterator:
    """A browser for one test: Playwright keeps an event loop running, which other tests may not find."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()
