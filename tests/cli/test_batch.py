"""`jedi batch`: each picture once, a failed line reported and skipped, a stopped run taken up again."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from jedi_diffusion import models
from jedi_diffusion.cli import generate as command
from jedi_diffusion.pictures import read_parameters


@pytest.fixture
def batch(jedi, joint_model, photo, tmp_path):
    """`jedi batch` on these lines, with the photo of the fixture beside them."""

    def run(*lines: object, words: tuple = ()):
        path = tmp_path / "jobs.jsonl"
        path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))
        options = ("--out", tmp_path / "out", "--model", joint_model, "--device", "cpu")
        return jedi("batch", path, *options, *words)

    return run


def job(**values: object) -> dict:
    return {"reference": "photo.png", "prompt": "a robot", "steps": 2} | values


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def report(tmp_path: Path) -> list[dict]:
    return json.loads((tmp_path / "out" / "report.json").read_text())


def test_each_line_is_a_run_of_generate(batch, generate, tmp_path) -> None:
    done = batch(
        job(prompt=["a robot", "a dog"], seed=3), "", job(name="more", images_per_prompt=2, guidance=1.5)
    )
    assert done.status == 0, done.err
    made = pictures(tmp_path / "out")
    assert list(made) == [
        "00001/a-dog_3.png",
        "00001/a-robot_3.png",
        "more/a-robot_0.png",
        "more/a-robot_1.png",
    ]
    assert "4 new pictures" in done.out
    assert generate("--prompt", "a robot", "--images-per-prompt", 2, "--guidance", 1.5).status == 0
    plain = read_parameters(tmp_path / "out" / "a-robot_0.png")
    assert plain == read_parameters(tmp_path / "out" / "more" / "a-robot_0.png")
    alone, inside = (tmp_path / "out" / name / "settings.json" for name in ("", "more"))
    assert json.loads(alone.read_text())["model"] == json.loads(inside.read_text())["model"]
    assert report(tmp_path)[1] == {"line": 3, "made": 2, "kept": 0, "error": None}


def test_a_failed_line_is_reported_and_the_rest_goes_on(batch, tmp_path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    done = batch(
        job(reference="missing.png"),
        "{",
        job(colour="red"),
        job(guidance=float("nan")),
        job(prompt=[]),
        job(name="../x"),
        job(reference="broken.png"),
        job(size=30),
        job(name="good"),
        job(name="good"),
    )
    assert done.status == 1
    assert "9 of 10 lines failed" in done.err
    assert list(pictures(tmp_path / "out")) == ["good/a-robot_0.png"]
    errors = [row["error"] for row in report(tmp_path)]
    named = (
        "missing.png",
        "JSON",
        "colour",
        "guidance",
        "prompt",
        "../x",
        "broken.png",
        "size",
        "good",
        "same",
    )
    for error, word in zip(errors, named, strict=True):
        assert (error is None) if word == "good" else (word in error), error
    assert done.err.count("jedi: line ") == 9


@pytest.mark.parametrize("lines", [[], ["{"], [job(steps=0)]])
def test_without_a_good_line_no_model_is_loaded(batch, lines, monkeypatch) -> None:
    monkeypatch.setattr(models, "load_model", lambda *_: pytest.fail("the model was loaded"))
    done = batch(*lines)
    assert done.status == 2
    assert "no line that can be done" in done.err


def test_goes_on_where_it_was_stopped(batch, tmp_path, monkeypatch) -> None:
    lines = [job(images_per_prompt=3), job(prompt="a dog")]
    real, calls = command.sample, []

    def stopping(*arguments):
        calls.append([item.file for item in arguments[3]])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(command, "sample", stopping)
    done = batch(*lines, words=("--batch", 2))
    assert done.status == 130
    assert "2 new pictures" in done.err
    before = pictures(tmp_path / "out")
    assert list(before) == ["00001/a-robot_0.png", "00001/a-robot_1.png"]
    calls[:] = [[], []]
    done = batch(*lines)
    assert done.status == 0, done.err
    assert calls[2:] == [["a-robot_2.png"], ["a-dog_0.png"]]
    assert pictures(tmp_path / "out").items() >= before.items()
    done = batch(*lines)
    assert "0 new pictures" in done.out
    assert "4 were there already" in done.out
    assert len(calls) == 4


@pytest.mark.slow
def test_goes_on_after_a_kill(batch, joint_model, photo, tmp_path) -> None:
    line = job(images_per_prompt=8, steps=20)
    assert batch(line, words=("--batch", 1)).status == 0
    expected = pictures(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    words = ("batch", tmp_path / "jobs.jsonl", "--out", tmp_path / "out", "--model", joint_model)
    words += ("--device", "cpu", "--batch", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "jedi_diffusion", *map(str, words)], stderr=subprocess.DEVNULL
    )
    while len(pictures(tmp_path / "out")) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    left = pictures(tmp_path / "out")
    assert 2 <= len(left) < 8
    assert left.items() <= expected.items()  # no half picture has a picture's name
    done = batch(line, words=("--batch", 1))
    assert (done.status, f"{len(left)} were there already" in done.out) == (0, True), done.err
    assert pictures(tmp_path / "out") == expected


def test_a_changed_line_does_not_replace_pictures_unasked(batch, tmp_path) -> None:
    assert batch(job()).status == 0
    before = pictures(tmp_path / "out")
    done = batch(job(steps=3))
    assert done.status == 1
    assert "made with other settings" in done.err
    assert pictures(tmp_path / "out") == before
    assert batch(job(steps=3), words=("--overwrite",)).status == 0
    after = pictures(tmp_path / "out")
    assert (after.keys(), after != before) == (before.keys(), True)


@pytest.mark.parametrize("name", ["report.json", "Report.JSON"])
def test_no_line_takes_the_place_of_the_report(name, batch, tmp_path) -> None:
    done = batch(job(name=name), job(name="good"))
    assert done.status == 1
    assert "that of the report" in done.err
    assert [row["error"] is None for row in report(tmp_path)] == [False, True]


def test_a_line_ends_at_a_line_break_only(batch, tmp_path) -> None:
    """JSON may hold U+2028 and U+0085 as they are; a byte-order mark before the first line is none of it."""
    prompts = ["a\u2028robot", "a\x85dog"]
    lines = [json.dumps(job(prompt=text, steps=1), ensure_ascii=False) for text in prompts]
    done = batch("\ufeff" + lines[0], *lines[1:])
    assert done.status == 0, done.err
    settings = [
        json.loads((tmp_path / "out" / name / "settings.json").read_text()) for name in ("00001", "00002")
    ]
    assert [each["options"]["prompt"] for each in settings] == [[text] for text in prompts]


def test_another_photo_of_the_same_name_is_noticed(batch, photo, tmp_path) -> None:
    """Pictures do not say which photo they were made from; the settings beside them do, salted."""
    assert batch(job()).status == 0
    before = pictures(tmp_path / "out")
    Image.new("RGB", (40, 40), "teal").save(photo)
    done = batch(job())
    assert (done.status, "made from other references" in done.err) == (1, True)
    assert pictures(tmp_path / "out") == before
    assert "1 new pictures" in batch(job(), words=("--overwrite",)).out
    assert pictures(tmp_path / "out") != before
    assert "1 were there already" in batch(job(), words=("--overwrite",)).out
