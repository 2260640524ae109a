"""The recipe that trains the bundled model from nothing makes a few steps, as those of base models do in
tests/train/test_recipes.py.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jedi_diffusion.cli import train
from jedi_diffusion.train import samples
from jedi_toybox import world

SMALL = (
    *("stages.0.subjects=4", "stages.0.steps=2", "stages.0.batch=2", "stages.0.resolution=32"),
    *("stages.1.subjects=4", "stages.1.steps=2", "stages.1.batch=4", "stages.1.resolution=32"),
    *(
        "supersample=1",
        "precision=float32",
        "model.autoencoder.latent_channels=4",
        "model.unet.sample_size=4",
    ),
)


def test_the_toybox_recipe_trains(jedi: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render, plain = world.render, {"compiled": False}  # compiling takes longer than all else
    monkeypatch.setattr(world, "render", lambda *given, **settings: render(*given, **settings | plain))
    monkeypatch.setattr(train, "SHOWN_SETS", 2)
    monkeypatch.setattr(samples, "STEPS", 1)
    words = [word for change in SMALL for word in ("--set", change)]
    done = jedi("train", "toybox", "--out", tmp_path / "run", "--device", "cpu", *words)
    assert done.status == 0, done.err
    assert (tmp_path / "run" / "model" / "model_index.json").is_file()
    for stage in ("autoencoder", "sets"):
        log = (tmp_path / "run" / stage / "log.jsonl").read_text()
        assert [json.loads(line)["step"] for line in log.splitlines()] == [2]


def test_a_recipe_in_stages_is_refused_where_several_processes_start_it(
    jedi: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = jedi("train", "toybox", "--out", tmp_path / "run", "--device", "cpu")
    assert done.status == 2
    assert "trains in one process, but WORLD_SIZE is 2: start it by `jedi train`" in done.err
    assert not (tmp_path / "run").exists()
