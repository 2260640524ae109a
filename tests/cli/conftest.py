"""Models, photos and a way to run commands in the test's own process."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.cli import main


class Result(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def jedi(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `jedi` with these words; its output is what a terminal would show."""

    def run(*words: object) -> Result:
        capfd.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:  # tyro's own help and usage errors
            status = int(stop.code or 0)
        shown = capfd.readouterr()
        assert "Traceback" not in shown.err
        return Result(status, shown.out, shown.err)

    return run


@pytest.fixture(scope="session")
def joint_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers.small_pipelines import save_joint

    return save_joint(tmp_path_factory.mktemp("models") / "joint")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    values = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(values).resize((70, 50), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def generate(jedi: Command, joint_model: Path, photo: Path, tmp_path: Path) -> Command:
    """`jedi generate` on the tiny model, two steps, one photo, one prompt; words replace the defaults."""

    def run(*words: object) -> Result:
        defaults = {
            "--reference": photo,
            "--prompt": "a robot on the beach",
            "--out": tmp_path / "out",
            "--model": joint_model,
            "--steps": 2,
            "--device": "cpu",
        }
        kept = [word for name, value in defaults.items() if name not in words for word in (name, value)]
        return jedi("generate", *kept, *words)

    return run


@pytest.fixture
def photo_folder(photo: Path, tmp_path: Path) -> Path:
    """Two subjects of two photos each, of different sizes and colours."""
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
    for name, turn in (("cat", 0), ("cup", 120)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        shifted = np.roll(np.asarray(picture), turn, 2)
        for number in range(2):
            Image.fromarray(np.roll(shifted, 7 * number, 1)).save(
                tmp_path / "photos" / name / f"{number:02d}.png"
            )
    return tmp_path / "photos"
