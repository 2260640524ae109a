"""Every method on small folders of the kinds of Stable Diffusion 1.x and XL; what its docstring must tell."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from jedi_diffusion.methods.conditioned import (
    ConcatenationBaseline,
    Conditioned,
    JointWithTokens,
    TokenBaseline,
)
from jedi_diffusion.methods.copy_input import CopyInput
from jedi_diffusion.methods.custom_diffusion import CustomDiffusion
from jedi_diffusion.methods.diffusekrona import DiffuseKronA
from jedi_diffusion.methods.dreambooth import DreamBooth
from jedi_diffusion.methods.finetuned import Finetuned
from jedi_diffusion.methods.fitting import FitSettings
from jedi_diffusion.methods.free_custom import FreeCustom
from jedi_diffusion.methods.image_tokens import (
    ClipFeatures,
    LearnedTokens,
    PictureTokens,
    remove_image_layers,
)
from jedi_diffusion.methods.ip_adapter import IPAdapter, load_ip_adapter
from jedi_diffusion.methods.svdiff import SVDiff
from jedi_diffusion.methods.text_only import TextOnly
from jedi_diffusion.methods.textual_inversion import TextualInversion
from jedi_diffusion.methods.training_free import TrainingFreeJoint
from jedi_diffusion.personalizer import Personalizer
from jedi_diffusion.pipeline import JeDiPipeline
from tests.helpers.small_adapters import NO_CHECKER, save_sdxl
from tests.helpers.small_ip_adapter import FEATURES, save_adapter, small_clip
from tests.helpers.small_pipelines import sd_parts

SAMPLING = {"num_inference_steps": 2, "guidance_scale": 2.0, "height": 64, "width": 64}
FIT = FitSettings(steps=2, learning_rate=0.05)
TUNINGS = {
    "dreambooth": DreamBooth(),
    "lora": DreamBooth(rank=2),
    "textual inversion": TextualInversion(),
    "custom diffusion": CustomDiffusion(),
    "svdiff": SVDiff(),
    "diffusekrona": DiffuseKronA(),
}
BLIND = {"text only"}
"""What does not look at the references."""


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    if request.param == "sdxl":
        return save_sdxl(folder)
    StableDiffusionPipeline(**sd_parts(), **NO_CHECKER).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(family: Path) -> Any:
    pipeline = JeDiPipeline.from_single_image_model(family)
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        for name, each in pipeline.unet.named_parameters():
            if ".attn2.to_v" in name:
                each.mul_(20)  # else text would hardly matter to random weights
            if name == "conv_in.weight":
                each[:, 4:].normal_(generator=torch.Generator().manual_seed(1))
    return pipeline


def trained(denoiser: Any) -> Any:
    """As if trained: values of image tokens away from zero."""
    with torch.no_grad():
        for layer in denoiser.layers.values():
            layer.to_v.weight.normal_(generator=torch.Generator().manual_seed(9))
    return denoiser


def conditioned(name: str, pipe: Any) -> Conditioned:
    width, tokens = pipe.unet.config.cross_attention_dim, pipe.tokenizer.model_max_length
    if name == "concatenation":
        return Conditioned(pipe, ConcatenationBaseline(pipe.unet), SAMPLING)
    torch.manual_seed(4)
    if name == "learned encoder":
        return Conditioned(
            pipe, trained(TokenBaseline(pipe.unet, LearnedTokens(4, width, 16, 2), tokens)), SAMPLING
        )
    encoder = PictureTokens(ClipFeatures(small_clip(), pipe.decode_latents), FEATURES, width, tokens=2)
    kind = TokenBaseline if name == "clip encoder" else JointWithTokens
    return Conditioned(pipe, trained(kind(pipe.unet, encoder, tokens)), SAMPLING)


METHODS: dict[str, Callable[[str, Any], Personalizer]] = {
    "text only": lambda _, pipe: TextOnly(pipe, SAMPLING),
    "training-free": lambda _, pipe: TrainingFreeJoint(pipe, SAMPLING),
    "freecustom": lambda _, pipe: FreeCustom(pipe, SAMPLING),
    **dict.fromkeys(TUNINGS, lambda name, pipe: Finetuned(pipe, TUNINGS[name], FIT, SAMPLING)),
    **dict.fromkeys(("clip encoder", "concatenation", "learned encoder", "jedi and clip"), conditioned),
}


def photo(color: str) -> Image.Image:
    return Image.new("RGB", (48, 40), color)


def check(method: Personalizer, follows_references: bool) -> None:
    """Its pictures: one a prompt, of the size asked for, and others for another subject."""
    ask = (["a dog"], ["a dog on the beach", "a dog in the snow"], [1, 2])
    one, other = (method([photo(color)], *ask) for color in ("red", "white"))
    assert [each.size for each in one] == [(64, 64)] * 2
    changed = [not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True)]
    assert changed == [follows_references] * 2


@pytest.mark.parametrize("name", list(METHODS))
def test_on_a_single_image_model_made_joint(pipe: Any, name: str) -> None:
    before = {key: each.clone() for key, each in pipe.unet.state_dict().items()}
    check(METHODS[name](name, pipe), name not in BLIND)
    remove_image_layers(pipe.unet)
    after = pipe.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_ip_adapter_on_the_folder_itself(family: Path, pipe: Any, tmp_path: Path) -> None:
    save_adapter(tmp_path, pipe.unet)
    adapted = load_ip_adapter(
        str(family), tmp_path / "adapter.safetensors", tmp_path / "encoder", 1.0, torch.float32
    )
    adapted.set_progress_bar_config(disable=True)
    check(IPAdapter(adapted, SAMPLING), follows_references=True)


def test_copies_are_no_work_of_a_model() -> None:
    made = CopyInput()([photo("red")], ["a dog"], ["a dog on the beach"], [1])
    assert np.array_equal(made[0], photo("red"))


def of_papers() -> list[type]:
    from jedi_diffusion.methods.blip_diffusion import BlipDiffusion

    tunings = {type(each) for each in TUNINGS.values()}
    others = [ConcatenationBaseline, TokenBaseline, JointWithTokens, TrainingFreeJoint, FreeCustom, IPAdapter]
    return sorted([*tunings, *others, BlipDiffusion], key=lambda each: each.__name__)


@pytest.mark.parametrize("method", of_papers(), ids=lambda each: each.__name__)
def test_docstrings_name_the_paper_and_what_differs(method: type) -> None:
    told = " ".join((inspect.getdoc(method) or "").split())
    assert re.search(r"\b20\d\d\b|Table \d|section \d", told), "the paper"
    assert re.search(r"[Ww]hat differs|[Nn]othing differs|neither is done|[Ww]hat is open", told)
