"""`jedi evaluate places` on captioned pictures, and its classifier as a judge of `jedi evaluate score`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.vision.places import PlaceClassifier
from tests.helpers.small_lite import small_lite0

package = pytest.fixture(small_lite0)
COLORS = {"on red sand": (220, 30, 30), "on blue ice": (30, 30, 220)}


def write_sets(folder: Path, count: int = 30) -> Path:
    """Pictures of one place each, its colour with noise; one of three is captioned without a place."""
    rng = np.random.default_rng(0)
    for number in range(count):
        home = folder / f"{number:02d}"
        home.mkdir(parents=True)
        for picture, (place, color) in enumerate(COLORS.items()):
            noisy = np.clip(rng.normal(color, 6, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(home / f"{picture}.png")
            (home / f"{picture}.txt").write_text(f"a mug {place}")
        Image.new("RGB", (24, 24), "green").save(home / "2.png")
        (home / "2.txt").write_text("a mug")
    return folder


def test_places_are_learnt_from_captions_and_judge_prompts(jedi, package, tmp_path) -> None:
    (tmp_path / "places.txt").write_text("on red sand\n\non blue ice\n")
    out = tmp_path / "new" / "places.safetensors"
    words = [write_sets(tmp_path / "sets"), "--places", tmp_path / "places.txt", "--encoder", "lite0"]
    done = jedi("evaluate", "places", *words, "--device", "cpu", "--out", out)
    assert done.status == 0, done.err
    assert "2 places, learnt from 48 pictures" in done.out
    assert PlaceClassifier.load(out).record["held_out"] == pytest.approx(
        {"accuracy": 1.0, "probability": 1.0, "pictures": 12}, abs=0.1
    )
    home = tmp_path / "own" / "mug"
    home.mkdir(parents=True)
    (home.parent / "prompts.txt").write_text("a {} on red sand\na {} in the dark\n")
    made = tmp_path / "made" / "mug" / "0"
    made.mkdir(parents=True)
    Image.new("RGB", (24, 24), (200, 60, 60)).save(home / "0.png")
    for number in range(2):
        Image.new("RGB", (24, 24), COLORS["on red sand"]).save(made / f"{number:02d}_0.png")
    score = ["evaluate", "score", "--protocol", "folder", "--data", tmp_path / "own", "--samples", 1]
    score += ["--pictures", tmp_path / "made", "--device", "cpu", "--places", out]
    done = jedi(*score, "--encoder", "lite0", "--out", tmp_path / "out")
    assert done.status == 0, done.err
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["methods"][-1]["scores"]
    assert scores["place"]["mean"] > 0.9  # of the one prompt with a known place
    assert scores["class"] is None  # ImageNet knows no mug by that name
    done = jedi(*score, "--encoder", "toybox", "--out", tmp_path / "other")
    assert done.status == 2
    assert "needs --encoder lite0" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sets", "--out", "o.safetensors"], "--places lists the places of DATA"),
        (["toybox", "--out", "o.safetensors", "--places", "p.txt"], "the toybox alone has its own"),
        (["toybox", "--out", "o.pt"], "the classifier is a .safetensors file"),
        (["toybox", "--out", "o.safetensors", "--pictures", "1"], "--pictures is 1"),
        (["sets", "--out", "o.safetensors", "--places", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["sets", "--out", "o.safetensors", "--places", "one.txt"], "lists 1 places"),
        (["sets", "--out", "o.safetensors", "--places", "far.txt"], "No caption of sets names a place"),
    ],
)
def test_wrong_requests_are_refused(jedi, package, tmp_path, monkeypatch, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    write_sets(Path("sets"), count=2)
    Path("one.txt").write_text("on red sand\n")
    Path("far.txt").write_text("on the moon\nunder water\n")
    done = jedi("evaluate", "places", *words, "--encoder", "lite0", "--device", "cpu")
    assert done.status in (1, 2)
    assert message in done.err
    assert not Path("o.safetensors").exists()
