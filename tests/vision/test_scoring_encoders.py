"""CLIP and DINO: preprocessing against one written out here, features against the networks' own parts."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, ViTModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from jedi_diffusion.errors import ModelError
from jedi_diffusion.vision.clip import CLIP_PREPROCESSING, ClipEncoder
from jedi_diffusion.vision.dino import DINO_PREPROCESSING, DinoEncoder
from tests.helpers.scoring_encoders import save_clip, save_dino


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dino(tmp_path_factory.mktemp("dino"))


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def cubic(x: float) -> float:
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def bicubic(values: np.ndarray, length: int) -> np.ndarray:
    """Rows resampled to `length`; the kernel is widened when shrinking; rounded to 8 bits."""
    before = len(values)
    scale = before / length
    wide = max(scale, 1.0)
    out = []
    for place in range(length):
        middle = (place + 0.5) * scale
        near = range(max(0, math.floor(middle - 2 * wide)), min(before, math.ceil(middle + 2 * wide)))
        weights = np.array([cubic((each + 0.5 - middle) / wide) for each in near])
        out.append(np.tensordot(weights / weights.sum(), values[near.start : near.stop], 1))
    return np.clip(np.floor(np.array(out) + 0.5), 0, 255)


def by_hand(picture: Image.Image, shorter: int, mean: list[float], std: list[float]) -> np.ndarray:
    """What the README of every DreamBench scorer means: shorter side, central 224, mean and deviation."""
    values = np.asarray(picture, np.float64)
    height, width = values.shape[:2]
    factor = shorter / min(height, width)
    columns, rows = int(width * factor + 1e-9), int(height * factor + 1e-9)
    values = bicubic(values.transpose(1, 0, 2), columns).transpose(1, 0, 2)
    values = bicubic(values, rows)
    top, left = round((rows - 224) / 2), round((columns - 224) / 2)
    values = values[top : top + 224, left : left + 224] / 255
    return ((values - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(512, 512), (300, 400), (531, 260), (100, 90)])
def test_preprocessing_agrees_with_one_written_out(size: tuple[int, int]) -> None:
    picture = photo(*size)
    cases = [
        (CLIP_PREPROCESSING, 224, [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
        (DINO_PREPROCESSING, 256, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    for preprocessing, shorter, mean, std in cases:
        ours, expected = preprocessing(picture), by_hand(picture, shorter, mean, std)
        assert ours.shape == (3, 224, 224)
        assert ours.dtype == np.float32
        level = 1 / 255 / min(std)  # Pillow's fixed-point arithmetic may round the other way
        assert np.abs(ours - expected).max() <= 2.01 * level  # once a pass
        assert np.abs(ours - expected).mean() < 0.02 * level


def test_clips_preprocessing_is_that_of_transformers_on_pillow() -> None:
    picture = photo(400, 300)
    theirs = CLIPImageProcessorPil()(picture, return_tensors="np")["pixel_values"][0]
    assert CLIP_PREPROCESSING(picture) == pytest.approx(theirs, abs=1e-5)


def test_clip_features_are_the_projections_at_length_one(clip: Path) -> None:
    encoder, network = ClipEncoder(clip), CLIPModel.from_pretrained(clip).eval()
    pictures = [photo(224, 224), photo(260, 240, seed=1), photo(224, 300, seed=2)]
    pixels = torch.from_numpy(np.stack([CLIP_PREPROCESSING(each) for each in pictures]))
    texts = ["a robot on the beach", "a dog", "a dog " * 40]
    ids = [encoder.words(each, truncation=True, max_length=12).input_ids for each in texts]
    with torch.inference_mode():
        seen = network.visual_projection(network.vision_model(pixel_values=pixels).pooler_output)
        words = [network.text_model(input_ids=torch.tensor([each])).pooler_output for each in ids]
        said = network.text_projection(torch.cat(words))
    for found, expected in ((encoder.images(pictures), seen), (encoder.texts(texts), said)):
        assert found == pytest.approx(torch.nn.functional.normalize(expected, dim=1).numpy(), abs=1e-5)


def test_dino_features_are_the_class_token_at_length_one(dino: Path) -> None:
    encoder, network = DinoEncoder(dino), ViTModel.from_pretrained(dino, add_pooling_layer=False).eval()
    pictures = [photo(300, 256, seed) for seed in range(3)]
    pixels = torch.from_numpy(np.stack([DINO_PREPROCESSING(each) for each in pictures]))
    with torch.inference_mode():
        expected = network(pixel_values=pixels).last_hidden_state[:, 0]
    expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    assert encoder.images(pictures) == pytest.approx(expected, abs=1e-5)
    assert encoder.images(pictures[1:2]) == pytest.approx(expected[1:2], abs=1e-5)


def test_fingerprint_changes_with_the_weights(dino: Path, tmp_path: Path) -> None:
    copied = save_dino(tmp_path / "dino")
    assert DinoEncoder(copied).fingerprint == DinoEncoder(dino).fingerprint
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copied / "model.safetensors").write_bytes(weights)
    assert DinoEncoder(copied).fingerprint != DinoEncoder(dino).fingerprint


def test_other_models_pickles_and_damage_are_refused(clip: Path, dino: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is of type clip, but the encoder needs a vit"):
        DinoEncoder(clip)
    pickled = save_dino(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle"):
        DinoEncoder(pickled)
    cut = save_dino(tmp_path / "cut")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="truncated"):
        DinoEncoder(cut)
    with pytest.raises(ModelError, match="nowhere/at-all"):
        DinoEncoder("nowhere/at-all")
