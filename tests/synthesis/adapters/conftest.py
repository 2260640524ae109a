"""The checkpoints of `small_adapters`, each built once a session, and pictures to show to them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_adapters
from PIL import Image


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a checkpoint by its name in `small_adapters` ("sam"), not to be changed."""
    folder, made = tmp_path_factory.mktemp("checkpoints"), {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = getattr(small_adapters, f"save_{name}")(folder / name)
        return made[name]

    return find


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Five pictures of rectangles on noise, of two sizes."""
    random = np.random.default_rng(0)
    made = []
    for number in range(5):
        width, height = (64, 64) if number % 2 == 0 else (72, 56)
        pixels = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
        pixels[8 : 40 + number, 6 + 4 * number : 40] = random.integers(60, 256, 3)
        made.append(Image.fromarray(pixels))
    return made
