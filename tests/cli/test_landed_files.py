"""Models, shards, settings and runs that version 0.1.0 of December 2026 wrote still load."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.data.shards import load_index
from jedi_diffusion.data.stored import StoredSets
from jedi_diffusion.pictures import read_parameters
from jedi_diffusion.trainer.state import checkpoints

FILES = Path(__file__).resolve().parents[1] / "fixtures" / "landed_2026_12"


@pytest.fixture
def landed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, with settings that say where it lies; the current folder."""
    folder = tmp_path / "landed"
    shutil.copytree(FILES, folder, copy_function=shutil.copyfile)  # new times, as after a download
    settings = folder / "generated" / "settings.json"
    settings.write_text(settings.read_text().replace("LANDED", str(folder)))
    monkeypatch.chdir(folder)
    return folder


def test_a_model_folder(landed: Path) -> None:
    pipe = JeDiPipeline.from_pretrained("joint_model")
    pipe.set_progress_bar_config(disable=True)
    with Image.open("photo.png") as photo:
        made = pipe("toy", references=[photo.convert("RGB")], num_inference_steps=2)
    assert made.images[0].size == (32, 32)


def test_shards(landed: Path) -> None:
    assert len(load_index("shards/00000.tar")) == 3
    sets = StoredSets("shards")
    assert [sets.size(item) for item in range(len(sets))] == [3, 2, 4]
    for item, size in enumerate((3, 2, 4)):
        found = sets.whole(item)
        assert found.captions == tuple(f"toy {number}" for number in range(size))
        assert (found.subject, found.source, found.info["seed"]) == (f"subject {item}", "tests", item)
        assert (found.masks is None) == (item > 0)
        colors = np.random.default_rng(100 * item).integers(0, 255, (2, 2, 3), dtype=np.uint8)
        assert np.array_equal(np.asarray(found.pictures[0])[::31, ::31], colors)


def test_settings_repeat_the_pictures(landed: Path, jedi: Callable) -> None:
    """The model's fingerprint is the recorded one too, or the command would tell that it is another model."""
    done = jedi("generate", "--from", "generated/settings.json", "--out", "again")
    assert done.status == 0, done.err
    assert "model" not in done.err
    before, after = (json.loads(Path(name, "settings.json").read_text()) for name in ("generated", "again"))
    assert after["model"]["fingerprint"] == before["model"]["fingerprint"]
    assert {**before["options"], "out": after["options"]["out"]}.items() <= after["options"].items()
    assert before["pictures"][0].items() <= after["pictures"][0].items()
    assert read_parameters(Path("generated", "toy_7.png"))["seed"] == 7


def test_a_run_goes_on_from_its_checkpoint(landed: Path, jedi: Callable) -> None:
    log = Path("run", "log.jsonl")
    before = log.read_text()
    done = jedi("train", "recipe.yaml", "--out", "run", "--device", "cpu")
    assert done.status == 0, done.err
    assert log.read_text().startswith(before)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3]
    assert [path.name for path in checkpoints(Path("run", "state"))] == ["step-00000002", "step-00000003"]
    trained = JeDiPipeline.from_pretrained("run/model").unet.state_dict()
    first = JeDiPipeline.from_pretrained("joint_model").unet.state_dict()
    assert trained.keys() == first.keys()
    assert not any(
        torch.equal(trained[name], first[name]) for name in trained if name.endswith("to_q.weight")
    )


def test_a_run_from_before_a_key_existed_goes_on(landed: Path, jedi: Callable) -> None:
    """With the key's default, and with no other value of it."""
    path = Path("run", "recipe.json")
    told = json.loads(path.read_text())
    del told["records"]["keep_every"], told["lora"]
    path.write_text(json.dumps(told))
    words = ("train", "recipe.yaml", "--out", "run", "--device", "cpu")
    other = jedi(*words, "--set", "lora.rank=2")
    assert other.status == 2
    assert "run holds a run of another recipe (another lora)" in other.err
    done = jedi(*words)
    assert done.status == 0, done.err
    assert [path.name for path in checkpoints(Path("run", "state"))][-1] == "step-00000003"
