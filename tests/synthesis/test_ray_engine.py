"""The engine `ray` makes what `local` makes, and a killed actor's shard is made again."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.ray_engine import run_ray
from jedi_diffusion.synthesis.recipe import PARTS, SynthesisRecipe
from jedi_diffusion.synthesis.runner import Job, run_local, synthesize_recipe
from tests.helpers.synthesis_models import build, deadly, refuse

ITEMS = tuple(ObjectName(f"thing {number}") for number in range(4))


def job(folder: Path, make=build, workers: int = 2, **ray: object) -> Job:
    recipe = SynthesisRecipe.model_validate(
        {
            "name": "test",
            "objects": [item.name for item in ITEMS],
            "stages": {"collages": 1, "collage_size": 64, "scene_size": 32, "min_area": 0.005},
            "models": {part: {"kind": "test"} for part in PARTS},
            "run": {"objects_per_shard": 1, "kept_collages": 1},
            "ray": ray,
        }
    )
    return Job(recipe, folder, make, workers)


def test_a_step_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ray: there is no step 'collages'; the steps are prompt, collage"):
        synthesize_recipe(job(tmp_path, actors={"collages": 2}), ITEMS, run_ray)


@pytest.fixture(autouse=True)
def actors_find_the_tests_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fuse", [True, False])
def test_the_same_manifest_also_when_a_worker_is_killed(tmp_path: Path, fuse: bool) -> None:
    local = synthesize_recipe(job(tmp_path / "local"), ITEMS, run_local, say=lambda text: None)
    said: list[str] = []
    mark = tmp_path / "killed"
    given = job(tmp_path / "ray", partial(deadly, str(mark)), workers=2 if fuse else 1, fuse=fuse)
    made = synthesize_recipe(given, ITEMS, run_ray, say=said.append)
    assert mark.exists()
    assert made.read_bytes() == local.read_bytes()
    assert said[-1].startswith("4 of 4 shards, 4 sets, 12 pictures")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_is_wrong_in_an_actor_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such weights"):
        synthesize_recipe(job(tmp_path / "run", refuse, fuse=True), ITEMS, run_ray)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_request_to_stop_leaves_whole_shards_and_can_be_gone_on_from(tmp_path: Path) -> None:
    given = job(tmp_path / "ray", workers=1, fuse=True)

    def stopping() -> bool:
        return len(list(given.folder.glob("shards/0*.json"))) >= 1

    with pytest.raises(KeyboardInterrupt, match=r"Stopped with \d of 4 shards whole"):
        synthesize_recipe(given, ITEMS, run_ray, stopping, say=lambda text: None)
    assert not (given.folder / ".stop").exists()
    local = synthesize_recipe(job(tmp_path / "local"), ITEMS, run_local, say=lambda text: None)
    made = synthesize_recipe(given, ITEMS, run_local, say=lambda text: None)
    assert made.read_bytes() == local.read_bytes()
