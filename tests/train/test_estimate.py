"""Counts against the published figures of SD 1.4 and against real weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jedi_diffusion.backbones.flux2 import Flux2Backbone
from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.cli import main
from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.recipes import CONFIGS
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.train.estimate import (
    Estimate,
    count_forward,
    count_kept,
    count_work,
    estimate,
    mean_pairs,
    pairs,
)
from jedi_diffusion.train.joint_recipe import Conditions, JointRecipe
from jedi_diffusion.train.plan import plan_set
from jedi_toybox import FOLDER
from tests.helpers.small_flux2 import flux2_batch, tiny_transformer
from tests.helpers.small_klein import klein_parts, save_klein
from tests.helpers.small_models import SD14_CONFIG, SDXL_CONFIG, random_batch, tiny_unet
from tests.helpers.small_pipelines import make_autoencoder
from tests.helpers.tiny_runs import recipe, save_base


@pytest.mark.parametrize(
    ("config", "size", "linear", "quadratic"),
    [(SD14_CONFIG, 64, 340.45, 61.25), (SD14_CONFIG, 32, 86.3, 3.83), (SDXL_CONFIG, 128, 3004.8, 375.8)],
    ids=["sd14-512", "sd14-256", "sdxl-1024"],
)
def test_real_architectures_cost_what_is_known(config, size, linear, quadratic) -> None:
    """GMAC of a joint forward, a N + b N^2, counted independently; the wider input adds little."""
    with torch.device("meta"):
        unet = make_joint(UNet2DConditionModel(**config))
    for number in (1, 2, 4):
        expected = linear * number + quadratic * number**2
        assert count_forward(unet, number, size) / 2e9 == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("cached", [False, True])
def test_a_set_costs_what_its_coupling_asks_for(cached: bool) -> None:
    """Against a count of the real forward, with attention as plain products, which the counter knows."""
    unet = make_joint(tiny_unet())
    raw = recipe(Path("nowhere"), Path("nowhere"), data__resolution=64)
    work = count_work(JointRecipe.model_validate(raw), unet, make_autoencoder())
    alone = replace(work, passes=1, encoding=0)
    for references in ((), (0,), (0, 2, 3)):
        text = torch.randn(4, UNetBackbone.text_tokens, 24)
        batch = random_batch(unet, (4,), references).conditioned({"text": text})
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            UNetBackbone(unet)(batch.latents, 5, batch, coupling="cached" if cached else "joint")
        flags = batch.is_reference.tolist()
        assert counter.get_total_flops() == pytest.approx(alone.needed(flags, cached), rel=1e-3)
    assert work.needed([False], cached) > 3 * alone.needed([False], cached)
    assert work.needed([False], cached, encoded=True) == 3 * alone.needed([False], cached)


def test_references_without_captions_cost_less_where_captions_are_tokens(tmp_path: Path) -> None:
    """Against a count of a real forward of FLUX.2, in which such a reference reads the target's caption."""
    save_klein(tmp_path / "base", is_distilled=False)
    given = JointRecipe.model_validate(recipe(tmp_path / "base", tmp_path, data__resolution=64))
    transformer = tiny_transformer()
    Flux2Backbone.couple(transformer)
    backbone = Flux2Backbone(transformer)
    work = count_work(given, transformer, klein_parts()["vae"])
    alone = replace(work, passes=1, encoding=0)
    for captioned in (False, True):
        batch = flux2_batch((2,), (0,), extents=[(4, 4)] * 2, text_tokens=512)
        told = batch.conditioned({"captioned": torch.tensor([captioned, True])})
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            backbone(told.latents, 0.5, told)
        found = alone.needed([True, False], cached=False, silent=int(not captioned))
        assert counter.get_total_flops() == pytest.approx(found, rel=1e-3)


def saved_bytes(unet, size: int) -> int:
    """What a forward of four pictures with memory saves for its backward."""
    backbone, saved = UNetBackbone(unet), {}
    weights = {each.data_ptr() for each in unet.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    noisy = torch.zeros(4, 4, size, size)
    conditions = backbone.example_conditions(4, backbone.text_tokens)
    batch = SetBatch(noisy, torch.ones(4, 1, 1, 1), conditions, (4,))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each):
        kept = backbone(noisy, torch.full((4,), 0.5), batch)
    assert kept.requires_grad
    return sum(each.untyped_storage().nbytes() for each in saved.values())


def test_what_a_forward_keeps_is_counted_as_autograd_keeps_it() -> None:
    unet, vae = make_joint(tiny_unet()).train(), make_autoencoder()
    raw = recipe(Path("nowhere"), Path("nowhere"), data__resolution=64)
    size = 64 // UNetBackbone(unet).stride(vae)
    whole = saved_bytes(unet, size)
    assert count_kept(JointRecipe.model_validate(raw), unet, vae, 4) == pytest.approx(whole, rel=1e-3)
    unet.enable_gradient_checkpointing()
    raw["training"]["gradient_checkpointing"] = True
    counted = count_kept(JointRecipe.model_validate(raw), unet, vae, 4)
    assert saved_bytes(unet, size) < counted < whole


def test_pairs_are_those_of_drawn_sets() -> None:
    """On average, over sets drawn as training draws them."""
    conditions = Conditions(reference=0.6, cached=0.5)
    for size in (1, 2, 4):
        drawn = [sum(plan_set(conditions, 0, place, 0, size).is_reference) for place in range(4000)]
        cached = sum(pairs(size, count, cached=True) for count in drawn) / len(drawn)
        assert mean_pairs(size, conditions) == pytest.approx((cached + size**2) / 2, rel=0.02)


def test_the_bundled_model_can_be_a_base(tmp_path: Path) -> None:
    """Its autoencoder is of another kind than Stable Diffusion's."""
    raw = recipe(Path("toybox"), tmp_path, data__resolution=128)
    found = estimate(JointRecipe.model_validate(raw), str(FOLDER))
    assert 13e6 < found.parameters < 15e6


def test_a_recipe_adds_up(tmp_path: Path) -> None:
    raw = recipe(save_base(tmp_path / "base"), tmp_path)
    raw["data"]["sources"] = [
        {"kind": "folders", "place": "a", "sizes": [2, 4], "probability": 3},
        {"kind": "single", "place": "b", "sizes": [1]},
    ]
    found = estimate(JointRecipe.model_validate(raw))
    assert found.pictures == pytest.approx(4 * (0.75 * 3 + 0.25 * 1))
    assert found.trained == found.parameters
    assert found.state == 20 * found.parameters
    assert estimate(JointRecipe.model_validate(raw), processes=4).state == found.state
    split = JointRecipe.model_validate({**raw, "training": {**raw["training"], "sharded": True}})
    assert estimate(split, processes=4).state == found.state / 4
    checkpointed = estimate(
        JointRecipe.model_validate({**raw, "training": {**raw["training"], "gradient_checkpointing": True}})
    )
    assert 1.2 < checkpointed.step / found.step < 1.34
    adapters = estimate(JointRecipe.model_validate({**raw, "lora": {"rank": 2}}))
    assert adapters.parameters == found.parameters
    assert 0 < adapters.trained < found.trained / 4
    assert adapters.state < found.state / 2


def test_latents_that_are_there_before_cost_nothing(tmp_path: Path) -> None:
    """The autoencoder's part, counted by itself on real weights, falls away for encoded sources alone."""
    base = save_base(tmp_path / "base")
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encode(torch.zeros(1, 3, 32, 32))
    raw = recipe(base, tmp_path)
    steps = []
    for first, second in ((None, None), ("latents", None), ("latents", "latents")):
        raw["data"]["sources"] = [
            {"kind": "sets", "place": "a", "sizes": [2, 4], "encoded": first, "probability": 3},
            {"kind": "single", "place": "b", "sizes": [1], "encoded": second},
        ]
        steps.append(estimate(JointRecipe.model_validate(raw)).step)
    picture = counter.get_total_flops()
    assert steps[0] - steps[1] == pytest.approx(4 * 0.75 * 3 * picture, rel=0.01)
    assert steps[1] - steps[2] == pytest.approx(4 * 0.25 * 1 * picture, rel=0.01)


def test_our_own_autoencoder_is_counted(tmp_path: Path) -> None:
    from jedi_toybox import FOLDER

    raw = recipe(FOLDER, tmp_path, data__resolution=128)
    found = estimate(JointRecipe.model_validate(raw))
    vae = PatchAutoencoder.from_pretrained(FOLDER, subfolder="vae")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encode(torch.zeros(1, 3, 128, 128))
    raw["data"]["sources"] = [{"kind": "sets", "place": "a", "sizes": [1, 2, 3], "encoded": "latents"}]
    without = estimate(JointRecipe.model_validate(raw))
    assert found.step - without.step == pytest.approx(found.pictures * counter.get_total_flops())


def test_the_summary_says_hours() -> None:
    text = Estimate(860_000_000, 860_000_000, 512, 1e15, 20 * 860e6, 2**31, 8, 36_000).describe()
    assert "860.0M parameters" in text
    assert "18.02 GiB, of which 16.02 for weights and optimizer, about 2.00 for what a forward of 8" in text
    assert "All 36000 steps: 100 device hours at 100 TFLOP/s" in text
    assert "4.2 days on one" in text


def test_a_dry_run_prints_the_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = save_base(tmp_path / "base", "sdxl")
    path = CONFIGS / "train" / "sdxl.yaml"
    words = ["train", str(path), "--out", str(tmp_path / "run"), "--dry-run", "--set", f"base={base}"]
    assert main([*words, "--set", "data.resolution=64"]) == 0
    assert "device hours at 100 TFLOP/s" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
