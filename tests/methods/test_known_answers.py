"""Copy-the-input, text-only and the oracle as personalizers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion.errors import UsageError
from jedi_diffusion.methods.copy_input import CopyInput
from jedi_diffusion.methods.oracle import Oracle, oracle_key
from jedi_diffusion.methods.text_only import TextOnly
from jedi_diffusion.personalizer import Personalizer
from jedi_diffusion.pipeline import JeDiPipeline
from tests.helpers.small_pipelines import save_joint


def plain(value: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (value, 0, 0))


def test_copies_are_the_references() -> None:
    method: Personalizer = CopyInput()
    made = method([plain(1), plain(2)], ["a", "a"], ["x", "y", "z"], [4, 5, 6])
    assert [each.getpixel((0, 0))[0] for each in made] == [1, 2, 1]


def test_the_oracle_answers_by_references_and_prompt() -> None:
    truths = {
        oracle_key([plain(1)], "x"): [plain(10), plain(11)],
        oracle_key([plain(2)], "x"): [plain(20)],
        oracle_key([plain(1), plain(2)], "x"): [plain(30)],
    }
    method: Personalizer = Oracle(truths)
    assert [each.getpixel((0, 0))[0] for each in method([plain(1)], ["a"], ["x", "x"], [2, 3])] == [10, 11]
    assert method([plain(2)], ["a"], ["x"], [9])[0].getpixel((0, 0))[0] == 20
    assert method([plain(1), plain(2)], ["a"] * 2, ["x"], [9])[0].getpixel((0, 0))[0] == 30
    with pytest.raises(UsageError, match="no true picture for 'y'"):
        method([plain(1)], ["a"], ["y"], [0])


def test_text_only_does_not_look_at_the_references(tmp_path: Path) -> None:
    pipe = JeDiPipeline.from_pretrained(save_joint(tmp_path / "model"))
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "coupling": "cached"}
    method: Personalizer = TextOnly(pipe, settings)
    one = method([plain(1)], ["a robot"], ["a dog", "a robot"], [5, 6])
    other = method([plain(200)], ["a dog"], ["a dog", "a robot"], [5, 6])
    alone = pipe(["a dog"], num_inference_steps=2, generator=[torch.Generator().manual_seed(5)]).images
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert np.abs(np.asarray(one[0], int) - np.asarray(alone[0], int)).max() <= 1
