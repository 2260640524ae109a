"""A recipe over a published FLUX.2 folder: adapters trained on sets, read by diffusers' own pipeline too."""

import json

import pytest
import torch
from diffusers import Flux2KleinPipeline

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.train.estimate import estimate
from jedi_diffusion.train.joint_recipe import JointRecipe
from tests.helpers.small_klein import save_klein
from tests.helpers.tiny_runs import recipe, run_of, save_subjects


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("klein")
    save_klein(root / "base")
    subjects = save_subjects(root / "photos")
    return recipe(root / "base", subjects, data__resolution=64, lora={"rank": 2}, training__steps=2)


def test_adapters_trained_on_sets_load_in_both_pipelines(tmp_path, raw):
    folder = run_of(tmp_path, raw).train()
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


def test_a_dry_run_counts_such_a_model(raw):
    found = estimate(JointRecipe.model_validate(raw))
    assert 0 < found.trained < found.parameters
    assert found.step > 0
