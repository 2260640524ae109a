"""The network that finds a photo's subject."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from jedi_diffusion.errors import ModelError
from jedi_diffusion.vision import subject_mask
from jedi_diffusion.vision.efficientnet import EfficientNetLite
from jedi_diffusion.vision.subject_mask import (
    CHANNELS,
    SIDE,
    SubjectMaskNetwork,
    load_subject_masks,
    normalized,
    subject_masks,
    subject_probabilities,
)
from tests.helpers.drawn_photos import ball_on_a_lawn


@pytest.mark.parametrize(("width", "height"), [(256, 256), (400, 200), (150, 300)])
def test_a_ball_on_a_lawn_is_found_at_its_place(width: int, height: int) -> None:
    box = (width // 4, height // 3, 3 * width // 4, height - height // 6)
    true = Image.new("1", (width, height))
    ImageDraw.Draw(true).ellipse(box, fill=1)
    (found,) = subject_masks([ball_on_a_lawn(width, height, box)])
    assert found.shape == (height, width)
    expected = np.asarray(true)
    assert (found & expected).sum() / (found | expected).sum() > 0.8


def test_probabilities_do_not_depend_on_the_other_pictures_of_a_batch(monkeypatch) -> None:
    pictures = [ball_on_a_lawn(200, 160, (20 * k, 40, 20 * k + 90, 150)) for k in range(5)]
    together = subject_probabilities(pictures)
    monkeypatch.setattr(subject_mask, "BATCH", 2)
    for one, other in zip(together, subject_probabilities(pictures), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert subject_probabilities([]) == []


def test_the_encoder_is_the_first_stages_of_lite0_and_is_not_trained() -> None:
    torch.manual_seed(0)
    lite, network = EfficientNetLite(), SubjectMaskNetwork()
    network.take_encoder(lite)
    pictures = normalized(torch.rand(2, 3, 64, 64))
    found = network.features(pictures)
    assert [each.shape[1:] for each in found] == [
        (channels, side, side) for channels, side in zip(CHANNELS, (32, 16, 8, 4), strict=True)
    ]
    torch.testing.assert_close(found[-1], lite.blocks[:11](F.relu6(lite.stem(pictures))))
    network(pictures).sum().backward()
    trained = {name.split(".")[0] for name, each in network.named_parameters() if each.grad is not None}
    assert trained == {"whole", "levels", "logits"}


def test_pictures_are_normalized_as_the_lite_encoder_does() -> None:
    from jedi_diffusion.vision.lite import VARIANTS

    side = VARIANTS["lite0"].preprocessing.crop
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    values = torch.from_numpy(np.asarray(shown, np.float32)).permute(2, 0, 1)[None] / 255
    mean, std = VARIANTS["lite0"].preprocessing.mean, VARIANTS["lite0"].preprocessing.std
    by_hand = np.stack([(np.asarray(shown)[..., c] / 255 - mean[c]) / std[c] for c in range(3)])
    np.testing.assert_allclose(normalized(values)[0].numpy(), by_hand, atol=1e-5)


def test_the_bundled_file_is_small_and_a_damaged_one_is_named(tmp_path) -> None:
    assert subject_mask.WEIGHTS.stat().st_size < 4e6
    assert not load_subject_masks().training
    damaged = tmp_path / "mask.safetensors"
    damaged.write_bytes(subject_mask.WEIGHTS.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"mask\.safetensors"):
        load_subject_masks(damaged)


def test_every_side_works() -> None:
    network = SubjectMaskNetwork().eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, SIDE, SIDE)).shape == (1, SIDE, SIDE)
        assert network(torch.zeros(1, 3, 70, 50)).shape == (1, 70, 50)
