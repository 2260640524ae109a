"""`jedi toybox score`, `photos` and `encoders` on a tiny random model."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from jedi_toybox import encoder_training
from jedi_toybox.encoders import FIELDS, FILE, SIDE, ScorerNetwork, load_encoders, save_encoders


@pytest.fixture
def encoders(tmp_path: Path) -> Path:
    save_encoders(ScorerNetwork(), tmp_path / "encoders", {"steps": 0})
    return tmp_path / "encoders"


def test_score_writes_scores_settings_and_sheet(jedi, joint_model, encoders, tmp_path) -> None:
    words = ["--model", joint_model, "--pairs", 3, "--references", 2, "--steps", 2, "--device", "cpu"]
    words += ["--coupling", "cached", "--null-set", "single", "--guidance", 2, "--encoders", encoders]
    words += ["--seeds", 3, "--over-references"]
    files = ["--out", tmp_path / "new" / "scores.json", "--sheet", tmp_path / "new" / "sheet.png"]
    done = jedi("toybox", "score", *words, *files)
    assert done.status == 0, done.err
    for name in (
        "identity",
        "prompt",
        "copy",
        "diversity",
        "true render",
        "another subject",
        "copy of the reference",
        "blob",
    ):
        assert name in done.out
    record = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert f"PSNR on the 3 true renders: mean {record['psnr_mean']:.2f} dB" in done.out
    assert record["baselines"]["true render"]["diversity"]["mean"] == pytest.approx(1)
    over = record["over_references"]
    assert list(over) == ["1", "2 of 2 views", "3 of 3 views", "2 of one view", "3 of one view"]
    assert all(name in done.out for name in over)
    assert all(over["2 of 2 views"][name] == record[name] for name in ("identity", "prompt", "copy"))
    for name in ("identity", "prompt", "copy", "diversity"):
        assert record[name].keys() == {"mean", "low", "high"}
        assert record[name]["low"] <= record[name]["high"]
    assert record["baselines"]["copy of the reference"]["copy"]["mean"] == 1
    assert record["baselines"]["true render"]["copy"]["mean"] == 0
    assert (record["pairs"], record["references"], record["size"]) == (3, 2, 32)
    assert record["settings"]["coupling"] == "cached"
    assert record["settings"]["null_set"] == "single"
    assert record["encoders"] == {"steps": 0}
    assert len(record["fingerprint"]) == 64
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 8 * 32
    again = jedi("toybox", "score", *words, "--out", tmp_path / "again.json")
    assert again.status == 0, again.err
    repeated = json.loads((tmp_path / "again.json").read_text())
    assert {**repeated, "settings": None} == {**record, "settings": None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs", "1"], "--pairs is 1"),
        (["--guidance", "nan"], "--guidance is nan"),
        (["--image-guidance", "101"], "--image-guidance is 101"),
        (["--model", "nowhere/at/all"], "nowhere/at/all"),
        (["--out", "/proc/none/scores.json"], "/proc/none"),
    ],
)
def test_score_refuses_before_anything_is_loaded(jedi, monkeypatch, words, message) -> None:
    monkeypatch.setattr("jedi_diffusion.models.load_model", pytest.fail)
    done = jedi("toybox", "score", *words)
    assert done.status in (1, 2)
    assert message in done.err
    assert done.out == ""


def test_encoders_trains_measures_and_writes(jedi, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(encoder_training, "render_pool", flat_pool)  # the rendered one has tests of its own
    words = ["--out", tmp_path, "--steps", 1, "--subjects", 32, "--judges", 4, "--device", "cpu"]
    done = jedi("toybox", "encoders", *words)
    assert done.status == 0, done.err
    assert str(tmp_path / FILE) in done.out
    record = load_encoders(tmp_path).record
    assert (record["subjects"], record["steps"]) == (32, 1)
    assert record["held_out"].keys() >= {"scene", "identity_auc"}


def flat_pool(split: str, first: int, subjects: int, pictures: int, device: str) -> encoder_training.Pool:
    """Subjects of one colour each, all of one noun."""
    colors = torch.arange(subjects, dtype=torch.uint8).view(-1, 1, 1, 1, 1)
    labels = {name: torch.zeros(subjects, pictures, dtype=torch.long) for name in (*FIELDS, "noun")}
    masks = torch.ones(subjects, pictures, SIDE, SIDE, dtype=torch.bool)
    return encoder_training.Pool(colors.expand(-1, pictures, 3, SIDE, SIDE), masks, labels, [""] * subjects)
