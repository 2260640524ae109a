"""A model learns from sets that the synthesis has made: the loss on them falls."""

import json
from pathlib import Path

import pytest

from tests.helpers.tiny_runs import recipe, save_base

pytest.importorskip("skimage")

import yaml

from jedi_diffusion.cli import main
from jedi_diffusion.recipes import CONFIGS

TOYBOX = CONFIGS / "synthesize" / "toybox.yaml"
CHANGES = ("objects=[cup]", "stages.collages=2", "stages.collage_size=96", "models.generator.rays=1")
CHANGES += (
    "models.inpainter.rays=1",
    "stages.style_probability=0",
    "stages.scene_size=32",
    "stages.min_area=0.001",
)


def test_training_learns_from_made_shards(tmp_path: Path) -> None:
    words = [word for change in CHANGES for word in ("--set", change)]
    assert main(["synthesize", str(TOYBOX), "--out", str(tmp_path / "made"), "--device", "cpu", *words]) == 0
    raw = recipe(save_base(tmp_path / "base"), tmp_path)
    raw["data"]["sources"] = [{"kind": "sets", "place": str(tmp_path / "made" / "shards")}]
    raw["data"]["resolution"] = 32
    raw["training"].update(steps=18, learning_rate=3e-3)
    raw["records"] = {"save_every": 100, "log_every": 1, "sample_every": None}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert main(["train", str(path), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 18
    assert sum(losses[-6:]) < 0.95 * sum(losses[:6])
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()
