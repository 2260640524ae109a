"""`jedi toybox score`, `photos` and `encoders` on a tiny random model."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from jedi_diffusion.toybox import encoder_training
from jedi_diffusion.toybox.encoders import FIELDS, FILE, SIDE, ScorerNetwork, load_encoders, save_encoders


@pytest.fixture
def encoders(tmp_path: Path) -> Path:
    save_encoders(ScorerNetwork(), tmp_path / "encoders", {"steps": 0})
    return tmp_path / "encoders"


def test_score_writes_scores_settings_and_sheet(jedi, joint_model, encoders, tmp_path) -> None:
    words = ["--model", joint_model, "--pairs", 3, "--references", 2, "--steps", 2, "--device", "cpu"]
    words += ["--coupling", "cached", "--null-set", "single", "--guidance", 2, "--encoders", encoders]
    files = ["--out", tmp_path / "new" / "scores.json", "--sheet", tmp_path / "new" / "sheet.png"]
    done = jedi("toybox", "score", *words, *files)
    assert done.status == 0, done.err
    for name in (
        "identity",
        "prompt",
        "copy",
        "true render",
        "another subject",
        "copy of the reference",
        "blob",
    ):
        assert name in done.out
    record = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert f"PSNR on the 3 true renders: mean {record['psnr_mean']:.2f} dB" in done.out
    for name in ("identity", "prompt", "copy"):
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
    monkeypatch.setattr("jedi_diffusion.cli.models.load_model", pytest.fail)
    done = jedi("toybox", "score", *words)
    assert done.status in (1, 2)
    assert message in done.err
    assert done.out == ""


def test_photos_makes_a_sheet_and_tells_the_psnr(jedi, joint_model, photo, tmp_path) -> None:
    folders = [tmp_path / "photos" / name for name in ("cat", "cup")]
    for folder in folders:
        folder.mkdir(parents=True)
        for name in ("00.png", "01.png"):
            (folder / name).write_bytes(photo.read_bytes())
    words = [tmp_path / "photos", "--model", joint_model, "--out", tmp_path / "out", "--steps", 1]
    done = jedi("toybox", "photos", *words, "--device", "cpu", "--prompt", "a toy")
    assert done.status == 0, done.err
    assert "PSNR on 2 photos at 32x32: mean" in done.out
    figures = json.loads((tmp_path / "out" / "photos.json").read_text())
    assert list(figures["psnr"]) == ["cat", "cup"]
    assert figures["psnr_mean"] == pytest.approx(sum(figures["psnr"].values()) / 2, abs=1e-3)
    with Image.open(tmp_path / "out" / "photos.png") as sheet:
        assert sheet.width > 3 * 32
        first = sheet.tobytes()
    again = jedi("toybox", "photos", *words, "--device", "cpu", "--prompt", "a toy")
    assert again.status == 0
    with Image.open(tmp_path / "out" / "photos-2.png") as sheet:
        assert sheet.tobytes() == first


def test_photos_of_a_folder_without_subfolders_are_all_taken(photo) -> None:
    from jedi_diffusion.toybox.photos import find_photos, read_photos

    (photo.parent / "b.JPG").write_bytes(photo.read_bytes())
    (photo.parent / "notes.txt").write_text("no picture")
    assert [path.name for path in find_photos(photo.parent)] == ["b.JPG", "photo.png"]
    assert [each.name for each in read_photos(photo.parent, 32)] == ["b", "photo"]
    assert read_photos(photo.parent, 32)[0].picture.size == (32, 32)


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_photos_refuses_a_folder_without_pictures(jedi, joint_model, tmp_path, folder) -> None:
    (tmp_path / "empty").mkdir()
    done = jedi("toybox", "photos", tmp_path / folder, "--model", joint_model, "--out", tmp_path / "out")
    assert done.status == 2
    assert str(tmp_path / folder) in done.err


def test_default_prompts_of_photos_are_words_of_the_world() -> None:
    from jedi_diffusion.toybox import world
    from jedi_diffusion.toybox.photos import NAME, PROMPTS

    words = {word for prompt in (NAME, *PROMPTS) for word in prompt.split()}
    assert words <= set(world.vocabulary())
    assert all(any(scene in prompt for scene in world.SCENES) for prompt in PROMPTS)


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
