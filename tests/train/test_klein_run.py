"""A recipe over a published FLUX.2 folder: adapters trained on sets, read by diffusers' own pipeline too."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from diffusers import Flux2KleinPipeline, FluxPipeline
from safetensors.torch import load_file

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.cli import main
from jedi_diffusion.errors import UsageError
from jedi_diffusion.models import open_base
from jedi_diffusion.train.encoding import Encoding, encode_shards
from jedi_diffusion.train.estimate import estimate
from jedi_diffusion.train.export import export_joint
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.joint_task import MixtureTask
from tests.helpers.small_klein import save_klein
from tests.helpers.tiny_runs import recipe, run_of, save_base, save_subjects


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("klein")
    save_klein(root / "base")
    subjects = save_subjects(root / "photos")
    return recipe(root / "base", subjects, data__resolution=64, lora={"rank": 2}, training__steps=2)


def test_adapters_trained_on_sets_load_in_both_pipelines(tmp_path, raw):
    run = run_of(tmp_path, raw)
    folder = run.train()
    exported = load_file(export_joint(run.recipe, tmp_path, None) / "pytorch_lora_weights.safetensors")
    final = load_file(folder / "pytorch_lora_weights.safetensors")
    torch.testing.assert_close(exported, final, atol=0, rtol=0)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert all(row["loss_by_role"].keys() == {"target"} for row in rows)
    ours = JeDiPipeline.from_pretrained(raw["base"], dtype=torch.float32)
    theirs = Flux2KleinPipeline.from_pretrained(raw["base"], torch_dtype=torch.float32)
    for pipe in (ours, theirs):
        pipe.load_lora_weights(str(folder))
    found = (dict(pipe.transformer.named_parameters()) for pipe in (ours, theirs))
    mine, other = ({name: value for name, value in each.items() if "lora_B" in name} for each in found)
    assert mine
    assert any(value.any() for value in mine.values())
    torch.testing.assert_close(mine, other, atol=0, rtol=0)


FLUX2_NAMES = (
    r"transformer_blocks\.\d+\.attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)",
    r"transformer_blocks\.\d+\.ff(_context)?\.linear_(in|out)",
    r"single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)",
)
FLUX_NAMES = (
    r"transformer_blocks\.\d+\.attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)",
    r"transformer_blocks\.\d+\.ff(_context)?\.net\.(0\.proj|2)",
    r"single_transformer_blocks\.\d+\.(attn\.to_[qkv]|proj_mlp|proj_out)",
)
"""Layers of both families that ComfyUI's `flux_to_diffusers` (comfy/utils.py) maps to its own. `comfy.lora`
looks for them after "transformer.", with ".lora_A.weight", ".lora_B.weight", and ".alpha" or a scale of 1."""


@pytest.mark.parametrize(("kind", "names"), [("klein", FLUX2_NAMES), ("flux", FLUX_NAMES)])
def test_adapters_have_names_and_scale_that_comfyui_reads(tmp_path, raw, kind, names):
    """No scale is left to settings that it does not read: the same change of weights without them."""
    given = json.loads(json.dumps(raw)) | {"lora": {"rank": 2, "alpha": 6}}
    given["base"] = str(save_base(tmp_path / "base", kind))
    run = run_of(tmp_path / "run", given)
    folder = run.train()
    weights = load_file(folder / "pytorch_lora_weights.safetensors")
    layers = {name.removesuffix(".lora_A.weight") for name in weights if name.endswith(".lora_A.weight")}
    assert set(weights) == {f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    for each in names:
        assert any(re.fullmatch(f"transformer\\.{each}", layer) for layer in layers)
    assert all(re.fullmatch(f"transformer\\.({'|'.join(names)})", layer) for layer in layers)
    changed = dict(run.pipeline.network.named_modules())
    for layer in layers:
        delta = weights[f"{layer}.lora_B.weight"] @ weights[f"{layer}.lora_A.weight"]
        trained = changed[layer.removeprefix("transformer.")].get_delta_weight("default")
        torch.testing.assert_close(delta, trained.detach(), atol=1e-6, rtol=1e-4)
    theirs = {"klein": Flux2KleinPipeline, "flux": FluxPipeline}[kind].from_pretrained(given["base"])
    theirs.load_lora_weights(str(folder))
    assert set(theirs.transformer.peft_config["default_0"].to_dict()["alpha_pattern"].values()) <= {2}
    assert theirs.transformer.peft_config["default_0"].lora_alpha == 2


def test_captions_encoded_before_are_read_as_those_of_training(tmp_path, raw):
    """Also which pictures have a caption: a reference without one reads the target's."""
    assert (
        main(
            ["data", "pack", raw["data"]["sources"][0]["place"], "--out", f"{tmp_path}/sets", "--size", "64"]
        )
        == 0
    )
    encode_shards(
        open_base(raw["base"]),
        f"{tmp_path}/sets",
        Encoding(name="latents", base=raw["base"], resolution=64, store="float32"),
    )
    losses = {}
    for name, encoded in {"online": {}, "encoded": {"encoded": "latents"}}.items():
        source = {"kind": "sets", "place": f"{tmp_path}/sets", "sizes": [2, 3], **encoded}
        given = json.loads(json.dumps(raw))
        given["data"]["sources"] = [source]
        given["conditions"] = {"no_caption": 0.5, "no_text": 0.3}
        run_of(tmp_path / name, given).train()
        rows = (tmp_path / name / "log.jsonl").read_text().splitlines()
        losses[name] = [json.loads(row)["loss"] for row in rows]
    assert losses["encoded"] == pytest.approx(losses["online"], rel=1e-5)


def test_sharding_is_refused_where_processes_would_run_the_network_differently(tmp_path, raw):
    run = run_of(tmp_path / "run", raw)
    given = json.loads(json.dumps(raw)) | {"lora": None}
    given["training"]["sharded"] = True
    two = SimpleNamespace(count=2, device=torch.device("cpu"))
    with pytest.raises(UsageError, match="sharded does not go with a Flux2Transformer2DModel"):
        MixtureTask(JointRecipe.model_validate(given), run.pipeline, run.mixture, two)


def test_a_dry_run_counts_such_a_model(raw):
    found = estimate(JointRecipe.model_validate(raw))
    assert 0 < found.trained < found.parameters
    assert found.step > 0
