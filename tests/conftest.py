"""What tests share: one thread a worker, no downloads, real photos where they are at hand, small models."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch at import: test workers share the cores
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

ROOT = Path(__file__).resolve().parents[1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("ray") is not None:
        pytest.importorskip("ray.serve", reason="needs the extras synthesis-ray and serve-ray")


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """Undo what a command does that runs in the tests' process: it sends warnings elsewhere."""
    yield
    logger = logging.getLogger("jedi_diffusion")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def dreambench() -> Path:
    """The DreamBooth photos, one folder a subject; tests that need them are skipped where they are absent."""
    folder = ROOT.parent / "shared" / "dreambench" / "dataset"
    if not folder.is_dir():
        pytest.skip(f"no DreamBooth photos in {folder}")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a checkpoint by its name in `small_adapters` ("sam"), not to be changed."""
    from tests.helpers import small_adapters

    folder, made = tmp_path_factory.mktemp("checkpoints"), {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = getattr(small_adapters, f"save_{name}")(folder / name)
        return made[name]

    return find


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Five pictures of rectangles on noise, of two sizes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    made = []
    for number in range(5):
        width, height = (64, 64) if number % 2 == 0 else (72, 56)
        pixels = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
        pixels[8 : 40 + number, 6 + 4 * number : 40] = random.integers(60, 256, 3)
        made.append(Image.fromarray(pixels))
    return made
