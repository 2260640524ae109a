"""The page over a fake runner: as it is served, and (slow) in a real browser."""

import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.app.page import Page
from jedi_diffusion.app.service import Service
from jedi_diffusion.app.session import Controls, Photo, Session, read_photo
from jedi_diffusion.calls import Call
from jedi_diffusion.pictures import read_parameters
from jedi_diffusion.vision import subject_mask
from tests.helpers.fake_runners import CARD, FakeRunner, ask, picture_of, wait
from tests.helpers.running_servers import Running
from tests.helpers.waiting import until, until_seen

# Gradio leaves event loops open while it builds its components, and calls pandas as it was.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_the_page_comes_with_the_api_and_loads_nothing_from_outside(served) -> None:
    running = served()
    with running.client() as client:
        page = client.get("/")
        assert page.status_code == 200
        assert "Photos of your subject" in page.text
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:)?//([^/"]+)', page.text)
        assert [host for _, host in loaded if not host.startswith("127.0.0.1")] == []
        fonts = re.findall(r"url\((?!['\"]?data:)[^)]*\)", client.get("/theme.css").text)
        assert fonts == []
        for path in ("/v1/models", "/healthz", "/docs"):
            assert client.get(path).status_code == 200


def test_a_visitor_who_comes_back_gets_what_is_finished(serve) -> None:
    """Without a browser: pictures of a job that ended early stay, and a second tab has files of its own."""
    running = serve()
    page = Page(Service(running.engine, CARD))
    first, second = Session(), Session()
    request: Any = SimpleNamespace(state=SimpleNamespace(client="127.0.0.1"))
    key = page.arrive(request, "", first)[0]
    assert len(key) > 20
    first.photos = [Photo(Image.new("RGB", (16, 16)), "a.png")]
    first.asked, first.is_kept = Controls(prompts="a\nb"), False
    first.job = running.engine.submit(ask("a", "b", "c"))
    first.job.listeners.append(lambda: len(first.job.done) == 2 and running.engine.cancel(first.job))
    assert wait(first.job).state == "cancelled"
    assert page.arrive(request, key, second)[0] == key
    assert [made.prompt for made in second.made] == ["a", "b"]
    assert (second.asked.prompts, second.photos[0].name) == ("a\nb", "a.png")
    assert second.photos[0] is not first.photos[0]
    page.leave(first)
    assert first.made == []
    assert [Image.open(made.path).tobytes() for made in second.made] == [
        picture_of(prompt, seed).tobytes() for seed, prompt in enumerate("ab")
    ]
    stranger = Session()
    assert page.arrive(request, "another key", stranger)[0] == "another key"
    assert stranger.made == []
    page.close()


# In a browser


class Visit:
    """A tab on the page, which notes every address it asks for."""

    def __init__(self, browser, running: Running, **settings: object) -> None:
        self.running = running
        self.context = browser.new_context(accept_downloads=True, **settings)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(120_000)
        self.asked: list[str] = []
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.said: list[str] = []
        self.context.on("console", lambda message: self.said.append(message.text))
        self.tab.goto(running.url)
        self.tab.wait_for_selector("#generate")

    def upload(self, *paths: Path) -> None:
        self.tab.set_input_files("#photos input[type=file]", [str(path) for path in paths])
        self.wait_for_photos(len(paths))

    def wait_for_photos(self, count: int) -> None:
        until_seen(self.tab, f"document.querySelectorAll('#crops .thumbnail-item').length == {count}")

    def wait_for_text(self, selector: str, text: str) -> None:
        """Until a field holds the text."""
        fields = ", ".join(f"{selector} {kind}" for kind in ("textarea", "input"))
        until_seen(self.tab, f"document.querySelector('{fields}').value == '{text}'")

    def prompt(self, text: str) -> None:
        self.tab.fill("#prompts textarea", text)

    def generate(self) -> Call:
        """Makes pictures and waits for them; what the runner was asked last."""
        before = len(self.running.runner.calls)

        def has_begun() -> bool:
            # A click counts only once the browser has heard that the call before is over.
            self.tab.click("#generate")
            self.tab.wait_for_timeout(500)
            return len(self.running.runner.calls) > before

        until(has_begun, tab=self.tab)
        self.tab.wait_for_selector("#status:has-text('Done in')")
        return self.running.runner.calls[-1]

    def download(self, button: str, path: Path) -> Path:
        with self.tab.expect_download() as got:
            self.tab.click(button)
        got.value.save_as(path)
        return path

    def width(self) -> int:
        return self.tab.evaluate("document.documentElement.scrollWidth")

    def press_until(self, reached: str, most: int = 60) -> None:
        """Goes on with the Tab key until the focus is where `reached`, JavaScript, says."""
        for _ in range(most):
            self.tab.keyboard.press("Tab")
            if self.tab.evaluate(reached):
                return
        raise AssertionError(f"the Tab key never leads to {reached}")

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
        assert each.outside() == []  # whatever a test did, nothing left the machine
        # ... and the page asked for nothing that its policy forbids
        assert [text for text in each.said if "Content Security Policy" in text] == []


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "one.png", tmp_path / "two.jpg"]
    values = np.random.default_rng(0).integers(0, 255, (24, 48, 3), dtype=np.uint8)
    for path in paths:
        Image.fromarray(values).save(path)
    return paths


@pytest.mark.slow
def test_from_photos_to_pictures_and_back(visit, photos, tmp_path) -> None:
    there = visit()
    tab, gate = there.tab, there.running.runner.gate
    there.upload(*photos)
    tab.fill("#what textarea, #what input", "a robot")
    there.prompt("a robot on the beach\na zebra")
    tab.wait_for_selector("#words mark:has-text('zebra')")
    tab.fill("#seed input", "5")
    tab.check("#locked input")
    gate.clear()  # no step is done before progress and previews have been seen
    tab.click("#generate")
    tab.wait_for_selector("#status progress")
    tab.wait_for_selector("#preview img")
    gate.set()
    tab.wait_for_selector("#made .thumbnail-item >> nth=1")
    call = there.running.runner.calls[0]
    assert (call.captions, call.sampling.steps, len(call.references)) == (("a robot",), 25, 2)

    tab.click("#made .thumbnail-item >> nth=0")
    tab.wait_for_selector("#settings:has-text('made with jedi-diffusion')")
    picture = there.download("#png", tmp_path / "picture.png")
    assert read_parameters(picture)["seed"] == 5
    expected = picture_of("a robot on the beach", 5, call.references)
    assert Image.open(picture).tobytes() == expected.tobytes()
    with zipfile.ZipFile(there.download("#zip", tmp_path / "all.zip")) as archive:
        assert len(archive.namelist()) == 3
        assert archive.read(archive.namelist()[0]) == picture.read_bytes()

    tab.click("#reuse")
    there.wait_for_photos(3)
    tab.fill("#seed input", "77")
    tab.click("#again")
    there.wait_for_text("#prompts", "a robot on the beach")
    there.wait_for_text("#seed", "5")
    again = there.generate()
    assert (list(again.prompts), list(again.seeds)) == (["a robot on the beach"], [5])
    assert again.references[2].tobytes() == expected.tobytes()
    tab.wait_for_selector("#made .thumbnail-item >> nth=2")


@pytest.mark.slow
def test_examples_seeds_and_messages(visit, photos, tmp_path) -> None:
    there = visit()
    tab = there.tab
    there.prompt("a robot")
    tab.click("#generate")
    tab.wait_for_selector("text=Add a photo of your subject first")
    tab.click("#examples .thumbnail-item >> nth=1")
    there.wait_for_text("#what", "a dog")
    tab.click("#surprise")
    there.wait_for_text("#what", "an owl")
    assert there.generate().references[0].tobytes() == Image.new("RGB", (16, 16), "blue").tobytes()
    first = there.generate().seeds
    assert there.generate().seeds != first  # drawn anew
    tab.check("#locked input")
    kept = int(tab.input_value("#seed input"))
    assert [list(there.generate().seeds) for _ in range(2)] == [[kept], [kept]]

    (tmp_path / "bad.png").write_bytes(b"nothing")
    tab.set_input_files("#photos input[type=file]", [str(tmp_path / "bad.png"), str(photos[0])])
    tab.wait_for_selector("text=bad.png is not a picture")
    tab.wait_for_selector("#crops .thumbnail-item:has-text('one.png')")
    there.wait_for_photos(1)  # the example has made room
    tab.set_input_files("#photos input[type=file]", [str(photos[0])] * 8)
    tab.wait_for_selector("text=9 photos are given; this page takes up to 8")
    there.prompt("fail")
    tab.click("#generate")
    tab.wait_for_selector("#status [role=alert]:has-text('The prompt is no good.')")
    there.prompt("crash")
    tab.click("#generate")
    tab.wait_for_selector("#status [role=alert]:not(:has-text('no good'))")
    assert "secret" not in tab.inner_text("#status")


@pytest.mark.slow
def test_settings_of_earlier_pictures_by_keyboard_and_dropped(visit, photos, tmp_path) -> None:
    there = visit(viewport={"width": 390, "height": 844})
    tab = there.tab
    there.upload(photos[0])
    there.prompt("a dog")
    tab.fill("#seed input", "8")
    tab.check("#locked input")
    before = there.generate()
    tab.click("#made .thumbnail-item")
    picture = there.download("#png", tmp_path / "picture.png")
    there.prompt("a cow")
    tab.uncheck("#locked input")
    choosers: list = []
    tab.on(
        "filechooser", lambda chooser: choosers.append(chooser)
    )  # long before it is used: the browser takes its time to know
    tab.focus("#prompts textarea")
    there.press_until("document.activeElement.closest('#recorded') != null")
    tab.keyboard.press("Enter")
    until(lambda: bool(choosers), tab=tab)
    choosers[0].set_files(str(picture))
    tab.wait_for_selector("#taken [role=status]:has-text('The settings of picture.png are taken.')")
    there.wait_for_text("#prompts", "a dog")
    there.wait_for_text("#seed", "8")
    assert tab.is_checked("#locked input")
    assert tab.is_visible("#more >> text=Image guidance")  # what counts now is in sight
    assert there.width() <= 390
    again = there.generate()
    assert (again.prompts, again.seeds, again.sampling) == (before.prompts, before.seeds, before.sampling)

    drop = """name => {
      const files = new DataTransfer();
      files.items.add(new File(["nothing"], name));
      const place = document.querySelector("#recorded button");
      place.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true}));
    }"""
    tab.evaluate(drop, "dropped.json")
    tab.wait_for_selector("#taken [role=alert]:has-text('dropped.json is neither a settings.json')")
    assert tab.input_value("#prompts textarea") == "a dog"


@pytest.mark.slow
def test_a_crop_is_moved_and_a_photo_removed(visit, photos) -> None:
    there = visit()
    tab = there.tab
    there.upload(*photos)
    there.prompt("a robot")
    whole = read_photo(photos[0], "one.png").picture
    middle, left = (Photo(whole, "", across).crop(16, 16).tobytes() for across in (0.5, 0.0))
    assert there.generate().references[0].tobytes() == middle
    assert not tab.is_visible("#down")  # a wide photo has no crop to move up or down
    before = tab.get_attribute("#crops img", "src")
    tab.focus("#across input[type=range]")
    tab.keyboard.press("Home")
    until_seen(tab, f"document.querySelector('#crops img').src != '{before}'")
    assert there.generate().references[0].tobytes() == left
    tab.click("#remove")
    there.wait_for_photos(1)
    assert len(there.generate().references) == 1
    tab.click("#remove")
    tab.wait_for_selector("#crops", state="hidden")


MASK_OF_VEIL = """() => {
    const veil = document.querySelector("#brushed .veil"), film = document.createElement("canvas");
    if (!veil) return null;
    [film.width, film.height] = [veil.naturalWidth, veil.naturalHeight];
    const context = film.getContext("2d");
    context.drawImage(veil, 0, 0);
    const data = context.getImageData(0, 0, film.width, film.height).data;
    return [...Array(data.length / 4).keys()].map(place => data[4 * place + 3] < 128);
}"""
"""Which pixels are read, as the page shows it."""


@pytest.mark.slow
def test_a_mask_is_found_painted_and_taken_back(visit, photos, monkeypatch) -> None:
    left = np.zeros((24, 48), dtype=bool)
    left[:, :24] = True
    monkeypatch.setattr(subject_mask, "subject_masks", lambda pictures: [left for _ in pictures])
    there = visit(viewport={"width": 900, "height": 1600})
    tab = there.tab

    def shown() -> np.ndarray | None:
        values = tab.evaluate(MASK_OF_VEIL)
        return None if values is None else np.array(values).reshape(24, 48)

    def becomes(changes: Callable[[np.ndarray | None], object]) -> None:
        until(lambda: changes(shown()), tab=tab)

    there.upload(photos[0])
    there.prompt("a robot")
    tab.click("#painting button")
    tab.wait_for_selector("#brush")
    tab.click("#find")
    becomes(lambda mask: mask is not None and (mask == left).all())
    until_seen(tab, "document.querySelector('#brush').width == 48")
    box = tab.locator("#brush").bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    tab.mouse.move(*at(0.1, 0.5))
    tab.mouse.down()
    tab.mouse.move(*at(0.3, 0.5), steps=4)
    tab.mouse.up()
    becomes(lambda mask: mask.sum() < left.sum() and not mask[12, 5:14].any() and mask[1, 1])
    painted = shown()
    assert not (painted & ~left).any()

    tab.check("#brush-does input[value=read]")
    tab.focus("#brush")  # by keyboard: from the last place to the right, out of what was found
    for _ in range(8):
        tab.keyboard.press("ArrowRight")
    tab.keyboard.down(" ")
    for _ in range(2):
        tab.keyboard.press("ArrowRight")
    tab.keyboard.up(" ")
    becomes(lambda mask: (mask & ~left).any() and (mask >= painted).all())
    tab.focus("#strength input[type=range]")
    tab.keyboard.press("Home")
    tab.focus("#brush")
    tab.keyboard.press("Control+z")
    becomes(lambda mask: (mask == painted).all())
    read = there.generate().references[0]
    assert read.strength == 0.1
    assert np.asarray(read.mask).shape == (16, 16)
    assert 0 < np.asarray(read.mask).mean() < 255

    tab.click("#undo")
    becomes(lambda mask: (mask == left).all())
    tab.click("#whole")
    becomes(lambda mask: mask is None)
    tab.click("#undo")
    becomes(lambda mask: mask is not None)
    tab.reload()
    there.wait_for_photos(1)
    tab.click("#painting button")
    becomes(lambda mask: mask is not None and (mask == left).all())
    assert there.width() <= 900


@pytest.mark.slow
def test_cancel_and_leaving_free_the_place(visit, photos) -> None:
    runner = FakeRunner(step_seconds=0.4)
    there = visit(runner)
    tab, engine = there.tab, there.running.engine
    there.upload(photos[0])
    there.prompt("a robot")
    tab.click("#generate")
    tab.wait_for_selector("#preview img")
    tab.click("#cancel")
    until(lambda: engine.unfinished == 0, tab=tab)
    steps = runner.steps
    tab.wait_for_selector("#status:has-text('cancelled')")
    tab.wait_for_timeout(1000)
    assert runner.steps <= min(steps + 1, 24)  # the one that was under way
    tab.click("#generate")
    until(lambda: engine.unfinished == 1, tab=tab)
    there.tab.goto("about:blank")
    until(lambda: engine.unfinished == 0, tab=tab)


@pytest.mark.slow
def test_a_narrow_dark_screen_and_the_keyboard(visit, photos) -> None:
    there = visit(viewport={"width": 390, "height": 844}, color_scheme="dark")
    tab = there.tab
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", background)[:3])) < 200
    assert there.width() <= 390
    there.upload(photos[0])
    tab.focus("#prompts textarea")
    tab.keyboard.type("a robot beside a zebra")
    tab.wait_for_selector("#words mark")
    assert there.width() <= 390
    there.press_until("document.activeElement.id == 'generate'")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#made .thumbnail-item")
    alts = tab.eval_on_selector_all("img", "images => images.map(each => each.alt)")
    assert len(alts) == 4  # two examples, a photo, a picture
    assert all(alts)
    there.press_until("document.activeElement.closest('#made .thumbnail-item') != null")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#settings:has-text('made with jedi-diffusion')")
    assert there.width() <= 390
    there.press_until("document.activeElement.closest('#png') != null")
    with tab.expect_download() as got:
        tab.keyboard.press("Enter")
    assert got.value.suggested_filename.endswith(".png")


IN_VIEW = """selector => {
    const box = document.querySelector(selector)?.getBoundingClientRect();
    if (!box || box.top < 0 || box.bottom > innerHeight) return false;
    return document.elementFromPoint(box.x + 5, (box.top + box.bottom) / 2)?.closest("#go") != null;
}"""
"""Asked in one go: gradio puts new elements in the place of those that show progress."""


@pytest.mark.slow
def test_what_is_finished_survives_cancelling_and_a_reload(visit, photos) -> None:
    runner = FakeRunner()
    there = visit(runner, viewport={"width": 390, "height": 844})
    tab, engine = there.tab, there.running.engine
    there.upload(photos[0])
    tab.fill("#what textarea, #what input", "a robot")
    there.prompt("a robot\na zebra\na cow")
    runner.step_seconds = 0.1

    def generate_one_of_three() -> None:
        """Holds the job in its second picture, however slow the browser is."""
        before = len(runner.calls)
        tab.press("#prompts textarea", "Control+Enter")
        until(lambda: len(runner.calls) == before + 2, tab=tab)
        runner.gate.clear()
        tab.wait_for_selector("#status:has-text('1 of 3')")

    generate_one_of_three()
    for seen in ("#status progress", "#words mark"):  # on a phone, without scrolling
        until_seen(tab, IN_VIEW, seen)
    tab.click("#cancel")
    runner.gate.set()
    tab.wait_for_selector("#status:has-text('1 of 3 pictures are done, and kept')")
    tab.wait_for_selector("#made .thumbnail-item")
    tab.reload()
    tab.wait_for_selector("#made .thumbnail-item")
    there.wait_for_photos(1)
    assert tab.input_value("#prompts textarea") == "a robot\na zebra\na cow"
    generate_one_of_three()
    tab.reload()  # in the middle of a job
    runner.gate.set()
    tab.wait_for_selector("#made .thumbnail-item >> nth=1")
    until(lambda: engine.unfinished == 0, tab=tab)
    other = there.context.browser.new_context()  # another visitor gets nothing of it
    try:
        stranger = other.new_page()
        stranger.goto(there.running.url)
        stranger.wait_for_selector("#generate")
        stranger.wait_for_timeout(1500)
        assert stranger.locator("#made img, #crops img").count() == 0
    finally:
        other.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, a checker of accessibility."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here, which brings axe-core")
    folder = tmp_path_factory.mktemp("axe")
    packed = subprocess.run(
        [npm, "pack", "axe-core@4.11.0"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    if packed.returncode:
        pytest.skip(f"npm does not bring axe-core: {packed.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme, axe, visit, photos) -> None:
    there = visit(color_scheme=scheme)
    there.upload(photos[0])
    there.prompt("a zebra")
    there.generate()
    there.tab.wait_for_selector("#made .thumbnail-item")
    there.tab.evaluate(axe)
    found = there.tab.evaluate("axe.run()")["violations"]
    serious = [
        (each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
    labels = there.tab.eval_on_selector_all(
        "#examples .thumbnail-item", "buttons => buttons.map(each => each.ariaLabel)"
    )
    assert labels == ["a robot", "a dog"]
