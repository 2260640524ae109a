"""What may be loaded: safetensors of the right kind, whole, and without code of its own."""

import json
import pickle
import shutil

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from jedi_diffusion.errors import ModelError
from jedi_diffusion.synthesis.adapters.instruct import InstructPromptWriter
from jedi_diffusion.synthesis.adapters.pipelines import (
    InstructPix2PixStylizer,
    PipelineInpainter,
    TextToImageGenerator,
)
from jedi_diffusion.synthesis.adapters.settings import (
    InpaintingSettings,
    InstructPix2PixSettings,
    InstructSettings,
    TextToImageSettings,
)
from jedi_diffusion.vision.blip2 import Blip2Captioner
from jedi_diffusion.vision.clip import ClipEmbedder
from jedi_diffusion.vision.settings import Blip2Settings, ClipSettings
from jedi_diffusion.vision.transformer import explained

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "model.safetensors"


@pytest.fixture
def clip(checkpoint, tmp_path):
    """A copy of a CLIP that may be broken."""
    return shutil.copytree(checkpoint("clip"), tmp_path / "clip")


@pytest.fixture
def sdxl(checkpoint, tmp_path):
    return shutil.copytree(checkpoint("sdxl"), tmp_path / "sdxl")


def refused(match, adapter=ClipEmbedder, settings=ClipSettings, **given):
    with pytest.raises(ModelError, match=match) as caught:
        adapter(settings(**{name: str(value) for name, value in given.items()}), "cpu")
    assert "\n" not in str(caught.value)


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_missing_folder_is_named(tmp_path):
    refused(f"There is no model folder {tmp_path}/nowhere", model=tmp_path / "nowhere")
    refused("There is no folder models/mine, and the Hub does not give its config.json", model="models/mine")
    refused(
        "There is no folder models/mine, and the Hub does not give its model_index.json",
        *(TextToImageGenerator, TextToImageSettings),
        model="models/mine",
    )


def test_a_file_is_no_folder(clip):
    refused("model.safetensors is a file; a model is a folder", model=clip / WEIGHTS)


def test_a_model_of_another_kind_is_refused(checkpoint):
    sam, sdxl = checkpoint("sam"), checkpoint("sdxl")
    refused("is of type sam, but the embedder needs a clip", model=sam)
    refused("is of type sam, but the captioner needs a blip-2", Blip2Captioner, Blip2Settings, model=sam)
    refused("type sam, but the writer needs a causal", InstructPromptWriter, InstructSettings, model=sam)
    refused("has no config.json; the embedder needs the folder of a transformers model", model=sdxl)
    refused("has no model_index.json; the generator", TextToImageGenerator, TextToImageSettings, model=sam)


def test_a_pipeline_that_does_not_fit_its_part_is_refused(checkpoint):
    kinds = {
        "sdxl": (TextToImageGenerator, TextToImageSettings),
        "inpainting": (PipelineInpainter, InpaintingSettings),
        "pix2pix": (InstructPix2PixStylizer, InstructPix2PixSettings),
    }
    for given in kinds:
        for wanted, (adapter, settings) in kinds.items():
            if given != wanted:
                refused(
                    r"is a StableDiffusion\w+Pipeline, which cannot be the",
                    adapter,
                    settings,
                    model=checkpoint(given),
                )


def test_pickles_are_refused_and_not_opened(clip, sdxl):
    class Trap:
        def __reduce__(self):
            return (clip / "opened").mkdir, ()

    (clip / WEIGHTS).write_bytes(pickle.dumps({"a": 1}))
    refused("is a pickle under a safetensors name", model=clip)
    (clip / WEIGHTS).unlink()
    (clip / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    refused("pytorch_model.bin is a pickle; only safetensors", model=clip)
    for name in ("text_encoder_2/model", "vae/diffusion_pytorch_model"):
        weights = sdxl / f"{name}.safetensors"
        weights.rename(weights.with_suffix(".bin"))
        refused("is a pickle; only safetensors", TextToImageGenerator, TextToImageSettings, model=sdxl)


def test_weights_that_are_missing_cut_or_not_finite_are_named(clip):
    tensors = load_file(clip / WEIGHTS)
    whole = (clip / WEIGHTS).read_bytes()
    (clip / WEIGHTS).write_bytes(whole[:-4])
    refused("model.safetensors is truncated", model=clip)
    left = {name: tensor for name, tensor in tensors.items() if "visual_projection" not in name}
    save_file(left, clip / WEIGHTS, {"format": "pt"})
    refused(r"does not fit its model: 1 tensors missing \(visual_projection\.weight\)", model=clip)
    save_file(
        tensors | {"visual_projection.weight": torch.full((12, 16), torch.nan)},
        clip / WEIGHTS,
        {"format": "pt"},
    )
    refused(r"holds NaN or infinity in tensor visual_projection\.weight", model=clip)
    save_file(tensors | {"visual_projection.weight": torch.zeros(12, 15)}, clip / WEIGHTS, {"format": "pt"})
    refused(r"1 tensors of the wrong shape \(visual_projection\.weight\)", model=clip)


def test_code_that_comes_with_a_model_is_not_run(clip, sdxl):
    change_json(clip / "config.json", model_type="mine", auto_map={"AutoModel": "code.Model"})
    (clip / "code.py").write_text("raise SystemExit('the code ran')")
    refused("is of type mine", model=clip)
    refused("is of type mine", InstructPromptWriter, InstructSettings, model=clip)
    index = json.loads((sdxl / "model_index.json").read_text())
    given = {"adapter": TextToImageGenerator, "settings": TextToImageSettings, "model": sdxl}
    change_json(sdxl / "model_index.json", unet=["antigravity", "UNet"])
    refused("wants unet from antigravity; only diffusers and transformers are used", **given)
    for name in ("Nonsense", "StableDiffusionXLPipelineOutput", ["pipeline", "Mine"], "UNet2DConditionModel"):
        (sdxl / "model_index.json").write_text(json.dumps(index | {"_class_name": name}))
        refused("which diffusers does not have", **given)


def test_broken_files_are_explained(clip):
    (clip / "preprocessor_config.json").unlink()
    refused("cannot be loaded", model=clip)
    change_json(clip / "config.json", projection_dim="wide")
    refused("cannot be loaded", model=clip)
    (clip / "config.json").write_text("{")
    refused("config.json is not valid JSON", model=clip)


def test_a_missing_package_is_named():
    with (
        pytest.raises(
            ModelError, match=r"mine needs a package that is not installed: pip install sentencepiece"
        ),
        explained("mine"),
    ):
        raise ImportError("pip install sentencepiece\nand more")


def test_the_fingerprint_follows_the_content_alone(checkpoint, clip):
    def of(folder):
        return ClipEmbedder(ClipSettings(model=str(folder)), "cpu").fingerprint

    first = of(checkpoint("clip"))
    assert first.startswith("CLIPModel blake2b:")
    assert of(clip) == first
    (clip / "README.md").write_text("notes")
    assert of(clip) == first
    change_json(clip / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    second = of(clip)
    tensors = load_file(clip / WEIGHTS)
    save_file(tensors | {"logit_scale": torch.tensor(1.0)}, clip / WEIGHTS, {"format": "pt"})
    assert len({first, second, of(clip)}) == 3


def test_a_model_of_the_hub_is_known_by_its_commit(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("clip", "pix2pix"):
        cached = tmp_path / f"models--some--{name}"
        shutil.copytree(checkpoint(name), cached / "snapshots" / COMMIT)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text(COMMIT)
    embedder = ClipEmbedder(ClipSettings(model="some/clip"), "cpu")
    assert embedder.fingerprint == f'CLIPModel some/clip@{COMMIT} {{"dtype": "float32"}}'
    stylizer = InstructPix2PixStylizer(InstructPix2PixSettings(model="some/pix2pix", revision=COMMIT), "cpu")
    assert stylizer.fingerprint.startswith(f"StableDiffusionInstructPix2PixPipeline some/pix2pix@{COMMIT} ")
