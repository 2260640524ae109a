"""CLIP's image embeddings against its image encoder by hand."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from jedi_diffusion.vision.clip import ClipEmbedder
from jedi_diffusion.vision.settings import ClipSettings

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def folder(checkpoint):
    return checkpoint("clip")


@pytest.fixture(scope="module")
def squares(pictures) -> list[Image.Image]:
    return [picture.resize((32, 32)) for picture in pictures]


def make(folder, **changes):
    return ClipEmbedder(ClipSettings(**{"model": str(folder), **changes}), "cpu")


@pytest.mark.filterwarnings(
    "ignore"
)  # the image half alone does not use all weights, which the library tells
def test_embeddings_are_the_encoders_at_length_one(folder, squares):
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    pixels = np.stack([(np.asarray(each) / 255 - MEAN) / DEVIATION for each in squares])
    with torch.no_grad():
        wanted = encoder(torch.tensor(pixels).permute(0, 3, 1, 2).float()).image_embeds.numpy()
    found = make(folder).embed(squares)
    assert found.dtype == np.float32
    assert found.shape == (5, 12)
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3


def test_a_picture_gets_the_same_in_any_batch(folder, pictures):
    together = make(folder).embed(pictures)
    np.testing.assert_allclose(make(folder, batch_size=2).embed(pictures), together, atol=1e-6)
    np.testing.assert_allclose(make(folder).embed(pictures[3:4]), together[3:4], atol=1e-6)
    assert make(folder).embed([]).shape == (0, 12)


def test_settings_of_old_checkpoints_are_read(folder, tmp_path, pictures):
    """As they stand in the released ones."""
    copy = shutil.copytree(folder, tmp_path / "old")
    given = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32, "resample": 3}
    flags = dict.fromkeys(("do_resize", "do_center_crop", "do_normalize"), True)
    text = json.dumps({**given, **flags, "image_mean": MEAN, "image_std": DEVIATION})
    (copy / "preprocessor_config.json").write_text(text)
    np.testing.assert_allclose(make(copy).embed(pictures), make(folder).embed(pictures), atol=1e-6)


def test_reduced_precision_and_offload_are_as_asked(folder, squares):
    embedder = make(folder, dtype="bfloat16", offload=True)
    found = embedder.embed(squares)
    assert embedder.model.visual_projection.weight.dtype == torch.bfloat16
    assert '"dtype": "bfloat16"' in embedder.fingerprint
    np.testing.assert_allclose(found, make(folder).embed(squares), atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
