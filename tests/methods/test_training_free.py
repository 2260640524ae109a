"""The training-free variant: what the network sees, and that it leaves no trace."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.errors import UsageError
from jedi_diffusion.methods.training_free import HiddenReferences, TrainingFreeJoint
from jedi_diffusion.personalizer import Personalizer
from jedi_diffusion.pipeline import JeDiPipeline
from tests.helpers.small_models import random_batch, randomize_new_channels, tiny_unet
from tests.helpers.small_pipelines import save_joint


def test_the_network_is_not_told_which_pictures_are_given() -> None:
    denoiser = UNetBackbone(randomize_new_channels(make_joint(tiny_unet())))
    given = random_batch(denoiser.unet, (2,), references=(0,))
    withheld = random_batch(denoiser.unet, (2,))
    noisy = torch.randn(given.latents.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = denoiser(noisy, torch.tensor(5), withheld)
        before = denoiser(noisy, torch.tensor(5), given)
        hidden = HiddenReferences(denoiser)(noisy, torch.tensor(5), given)
    assert torch.equal(hidden, expected)
    assert not torch.allclose(before, hidden, atol=1e-3)


def test_references_matter_through_attention_alone(tmp_path: Path) -> None:
    pipe = JeDiPipeline.from_pretrained(save_joint(tmp_path / "model"))
    pipe.set_progress_bar_config(disable=True)
    method: Personalizer = TrainingFreeJoint(pipe, {"num_inference_steps": 2})
    dark, light = (Image.new("RGB", (32, 32), (value,) * 3) for value in (0, 255))
    one, again, other = (
        method([photo], ["a robot"], ["a dog", "a robot"], [5, 6]) for photo in (dark, dark, light)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert all(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_backbone_that_prefers_cached_references_changes_nothing(tmp_path: Path) -> None:
    pipe = JeDiPipeline.from_pretrained(save_joint(tmp_path / "model"))
    pipe.set_progress_bar_config(disable=True)
    ask = ([Image.new("RGB", (32, 32), (200, 30, 90))], ["a robot"], ["a dog"], [5])
    before = TrainingFreeJoint(pipe, {"num_inference_steps": 2})(*ask)
    pipe.register_to_config(coupling="cached")
    after = TrainingFreeJoint(pipe, {"num_inference_steps": 2, "coupling": None})(*ask)
    assert before[0].tobytes() == after[0].tobytes()


def test_cached_coupling_is_refused(tmp_path: Path) -> None:
    pipe = JeDiPipeline.from_pretrained(save_joint(tmp_path / "model"))
    with pytest.raises(UsageError, match="coupling 'joint'"):
        TrainingFreeJoint(pipe, {"coupling": "cached"})
