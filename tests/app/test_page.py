"""The page over a fake runner: as it is served, and (slow) in a real browser."""

import gc
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeRunner, picture_of
from PIL import Image
from servers import Running

from jedi_diffusion.app.page import Page
from jedi_diffusion.app.session import Example
from jedi_diffusion.pictures import read_parameters

# Gradio leaves event loops open while it builds its components, and calls pandas as it was.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


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
    def start(**settings: object) -> Running:
        known = {"unknown_words": zebras}
        return serve(page=lambda service: Page(service, TwoExamples()).mount, service=known, **settings)

    yield start
    gc.collect()  # while these tests' filters hold


def test_the_page_comes_with_the_api_and_loads_nothing_from_outside(served) -> None:
    running = served()
    with running.client() as client:
        page = client.get("/")
        assert page.status_code == 200
        assert "Photos of your subject" in page.text
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:)?//([^/"]+)', page.text)
        assert [host for _, host in loaded if not host.startswith("127.0.0.1")] == []
        assert "default-src 'self'" in page.headers["content-security-policy"]
        fonts = re.findall(r"url\((?!['\"]?data:)[^)]*\)", client.get("/theme.css").text)
        assert fonts == []
        for path in ("/v1/models", "/healthz", "/docs"):
            assert client.get(path).status_code == 200


def test_row_11_the_page_reads_no_other_files(served) -> None:
    running = served()
    with running.client() as client:
        for path in ("/etc/passwd", "../../etc/passwd", str(Path(__file__))):
            answer = client.get(f"/gradio_api/file={path}")
            assert answer.status_code in (403, 404)
            assert "root:" not in answer.text


@pytest.mark.parametrize("path", ["/etc/hostname", "http://127.0.0.1:1/a.png", "http://example.org/a.png"])
def test_rows_11_and_12_a_request_by_hand_names_no_file_and_no_address(path, served) -> None:
    """The page's own calls, made without a browser: a photo that was never uploaded is refused."""
    running = served()
    with running.client() as client:
        config = client.get("/config").json()
        number = next(each["id"] for each in config["dependencies"] if each["targets"][0][1] == "change")
        photo = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
        call = {"data": [[photo], None], "fn_index": number, "session_hash": "x", "trigger_id": None}
        assert client.post("/gradio_api/queue/join", json=call).status_code == 200
        with client.stream("GET", "/gradio_api/queue/data?session_hash=x") as stream:
            lines = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
        last = next(line for line in lines if line["msg"] == "process_completed")
        assert last["success"] is False
    assert running.runner.calls == []


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """A tab on the page, which notes every address it asks for."""

    def __init__(self, browser, running: Running, **settings: object) -> None:
        self.running = running
        self.context = browser.new_context(accept_downloads=True, **settings)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(30_000)
        self.asked: list[str] = []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(running.url)
        self.tab.wait_for_selector("#generate")

    def upload(self, *paths: Path) -> None:
        self.tab.set_input_files("#photos input[type=file]", [str(path) for path in paths])
        self.tab.wait_for_selector(f"#crops .thumbnail-item >> nth={len(paths) - 1}")

    def prompt(self, text: str) -> None:
        self.tab.fill("#prompts textarea", text)

    def generate(self) -> None:
        self.tab.click("#generate")

    def outside(self) -> list[str]:
        inside = (self.running.url, "data:", "blob:")
        return [address for address in self.asked if not address.startswith(inside)]


@pytest.fixture
def visit(browser, served) -> Iterator[Callable[..., Visit]]:
    made: list[Visit] = []

    def start(runner: FakeRunner | None = None, **settings: object) -> Visit:
        made.append(Visit(browser, served(runner=runner), **settings))
        return made[-1]

    yield start
    for each in made:
        each.context.close()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "one.png", tmp_path / "two.jpg"]
    values = np.random.default_rng(0).integers(0, 255, (24, 48, 3), dtype=np.uint8)
    for path in paths:
        Image.fromarray(values).save(path)
    return paths


@pytest.mark.slow
def test_from_photos_to_pictures_and_back(visit, photos, tmp_path) -> None:
    there = visit(FakeRunner(step_seconds=0.02))
    tab = there.tab
    there.upload(*photos)
    tab.fill("#what textarea, #what input", "a robot")
    there.prompt("a robot on the beach\na zebra")
    tab.wait_for_selector("#words mark:has-text('zebra')")
    tab.fill("#seed input", "5")
    tab.check("#locked input")
    there.generate()
    tab.wait_for_selector("#status progress")
    tab.wait_for_selector("#made .thumbnail-item >> nth=1", timeout=60_000)
    tab.wait_for_selector("#status:has-text('2 pictures are done')")
    alts = tab.eval_on_selector_all("#made img, #crops img", "images => images.map(each => each.alt)")
    assert all(alts)
    call = there.running.runner.calls[0]
    assert (call.captions, call.sampling.steps, len(call.references)) == (("a robot",), 25, 2)
    tab.click("#made .thumbnail-item >> nth=0")
    tab.wait_for_selector("#settings:has-text('made with jedi-diffusion')")
    with tab.expect_download() as got:
        tab.click("#png")
    got.value.save_as(tmp_path / "picture.png")
    assert read_parameters(tmp_path / "picture.png")["seed"] == 5
    expected = picture_of("a robot on the beach", 5, call.references)
    assert Image.open(tmp_path / "picture.png").tobytes() == expected.tobytes()
    with tab.expect_download() as got:
        tab.click("#zip")
    got.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert len(archive.namelist()) == 3
    tab.click("#reuse")
    tab.wait_for_selector("#crops .thumbnail-item >> nth=2")
    tab.click("#again")
    tab.wait_for_function("document.querySelector('#prompts textarea').value == 'a robot on the beach'")
    assert there.outside() == []


@pytest.mark.slow
def test_examples_crops_and_messages(visit, photos, tmp_path) -> None:
    there = visit()
    tab = there.tab
    there.prompt("a robot")
    there.generate()
    tab.wait_for_selector("text=Add a photo of your subject first")
    tab.click("#examples .thumbnail-item >> nth=1")
    tab.wait_for_function("document.querySelector('#what textarea, #what input').value == 'a dog'")
    tab.click("#surprise")
    tab.wait_for_function("document.querySelector('#what textarea, #what input').value == 'an owl'")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    tab.set_input_files("#photos input[type=file]", str(tmp_path / "bad.png"))
    tab.wait_for_selector("text=bad.png is not a picture")
    assert there.outside() == []


@pytest.mark.slow
def test_cancel_and_leaving_free_the_place(visit, photos) -> None:
    there = visit(FakeRunner(step_seconds=0.4))
    there.upload(photos[0])
    there.prompt("a robot")
    there.generate()
    there.tab.wait_for_selector("#preview img")
    there.tab.click("#cancel")
    there.tab.wait_for_selector("#status:has-text('cancelled')")
    assert there.running.engine.unfinished == 0
    assert there.running.runner.steps < 25


@pytest.mark.slow
def test_a_narrow_dark_screen_and_the_keyboard(visit, photos) -> None:
    there = visit(viewport={"width": 390, "height": 844}, color_scheme="dark")
    tab = there.tab
    wide = tab.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", background)[:3])) < 200
    there.upload(photos[0])
    tab.focus("#prompts textarea")
    tab.keyboard.type("a robot")
    for _ in range(40):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "generate":
            break
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#made .thumbnail-item")
    assert there.outside() == []
