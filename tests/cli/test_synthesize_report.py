"""`jedi synthesize report`: encoders that are asked for, real photos beside, faults in one sentence."""

import json
from pathlib import Path

import pytest

from tests.helpers.scoring_encoders import save_clip, save_dino
from tests.helpers.small_benchmarks import make_clone
from tests.helpers.synthesis_runs import write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run").folder


def test_clip_and_dino_beside_real_photos(jedi, folder: Path, tmp_path: Path) -> None:
    words = ["--clip", save_clip(tmp_path / "clip"), "--dino", save_dino(tmp_path / "dino")]
    words += ["--device", "cpu", "--sets", 3, "--photos", make_clone(tmp_path / "dreambooth")]
    done = jedi("synthesize", "report", folder, "--out", tmp_path / "out", *words)
    assert done.status == 0, done.err
    for each in ("| this run | 6 | 3 |", "| real photos | 3 | 3 |", "| 1.6M | ~2K | 0.849 | 0.751 |"):
        assert each in done.out
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(found["encoders"]) == ["CLIP-I", "DINO"]
    assert found["sets_read"] == 3
    assert found["real_photos"]["photos"] == 12
    assert -1 <= found["real_photos"]["similarity"]["DINO"]["inside"]["mean"] <= 1
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert "not finished" not in done.out


def test_the_toyboxs_encoder_needs_no_download_and_knows_no_photos(
    jedi, folder: Path, tmp_path: Path
) -> None:
    photos = ["--photos", make_clone(tmp_path / "dreambooth")]
    done = jedi("synthesize", "report", folder, "--encoders", "toybox", "--device", "cpu", *photos)
    assert done.status == 0, done.err
    assert "toy-ID" in done.out
    assert "its numbers of real photos say nothing" in done.out
    assert "its numbers of real photos say nothing" in (folder / "report.html").read_text(encoding="utf-8")


def test_counts_alone_need_no_encoder(jedi, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", shards=1).folder
    done = jedi("synthesize", "report", folder, "--encoders", "none")
    assert done.status == 0, done.err
    assert "The run is not finished: 1 of 2 shards are whole." in done.out
    assert json.loads((folder / "report.json").read_text())["training_data"]["similarity"] == {}


def test_faults_are_one_sentence(jedi, folder: Path, tmp_path: Path) -> None:
    for words, status, message in (
        ([tmp_path / "nowhere"], 1, "holds no synthesis: recipe.json is missing"),
        ([folder, "--sets", 0], 2, "--sets is 0"),
        ([folder, "--photos", tmp_path / "nowhere"], 1, "Give a clone of github.com/google/dreambooth"),
        ([folder, "--clip", tmp_path / "nowhere"], 1, "nowhere"),
        ([folder, "--encoders", "none", "--out", folder / "recipe.json"], 1, "cannot be written"),
    ):
        done = jedi("synthesize", "report", *words)
        assert done.status == status, done
        assert message in done.err
        assert done.err.count("\n") == 1
