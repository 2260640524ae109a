"""IP-Adapter through diffusers, on tiny random weights in the real format."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.methods.ip_adapter import IPAdapter, load_ip_adapter
from jedi_diffusion.personalizer import Personalizer
from tests.helpers.small_ip_adapter import save_ip_adapter
from tests.helpers.small_pipelines import save_joint

SAMPLING = {"num_inference_steps": 2, "height": 32, "width": 32, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_ip_adapter(tmp_path_factory.mktemp("adapter"))


def load(folder: Path, scale: float = 1.0, **changes: object) -> IPAdapter:
    given = {
        "model": str(folder / "model"),
        "weights": folder / "adapter.safetensors",
        "image_encoder": folder / "encoder",
    }
    pipe = load_ip_adapter(**given | changes, scale=scale, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return IPAdapter(pipe, SAMPLING)


def test_pictures_follow_references_and_seeds(folder: Path) -> None:
    method: Personalizer = load(folder)
    random = np.random.default_rng(0)
    one, other = (Image.fromarray(random.integers(0, 256, (40, 30, 3), dtype=np.uint8)) for _ in range(2))
    two = method([one], ["a dog"], ["a robot", "a dog"], [1, 2])
    assert [each.size for each in two] == [(32, 32)] * 2
    changed = method([other], ["a dog"], ["a robot", "a dog"], [1, 2])
    assert all(not np.array_equal(a, b) for a, b in zip(two, changed, strict=True))
    alone = method([one], ["a dog"], ["a dog"], [2])
    assert np.abs(np.asarray(two[1], int) - np.asarray(alone[0], int)).max() <= 1
    both = method([one, other], ["a dog"] * 2, ["a dog"], [2])
    assert not np.array_equal(both[0], alone[0])


def test_scale_zero_is_the_backbone(folder: Path) -> None:
    from diffusers import StableDiffusionPipeline

    plain = StableDiffusionPipeline.from_pretrained(folder / "model", safety_checker=None)
    plain.set_progress_bar_config(disable=True)
    expected = plain(prompt=["a dog"], generator=[torch.Generator().manual_seed(3)], **SAMPLING).images
    made = load(folder, scale=0.0)([Image.new("RGB", (32, 32))], ["a dog"], ["a dog"], [3])
    assert np.array_equal(made[0], expected[0])


def test_what_cannot_be_an_adapter_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no adapter file"):
        load(folder, weights=tmp_path / "missing.safetensors")
    wrong = tmp_path / "lora.safetensors"
    save_file({"unet.lora": torch.zeros(2)}, wrong)
    with pytest.raises(ModelError, match=r"no IP-Adapter: it holds unet\.lora"):
        load(folder, weights=wrong)
    pickled = tmp_path / "adapter.bin"
    pickled.write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match="pickle"):
        load(folder, weights=pickled)
    few = tmp_path / "few.safetensors"
    save_file({"image_proj.proj.weight": torch.zeros(96, 12)}, few)
    with pytest.raises(ModelError, match="does not fit"):
        load(folder, weights=few)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder, image_encoder=tmp_path)
    joint = save_joint(tmp_path / "joint")
    with pytest.raises(ModelError, match="not a JeDiPipeline"):
        load(folder, model=str(joint))
