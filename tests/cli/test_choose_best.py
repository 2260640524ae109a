"""`--choose-best`: draws, the choice, and what is written of it."""

import json

import pytest
from PIL import Image

from jedi_diffusion.choosing import Verdict
from jedi_diffusion.pictures import read_parameters

PROMPTS = ("--prompt", "a robot on the beach", "--prompt", "a dog")


@pytest.fixture
def red_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge to which the reddest picture is the best."""

    class Red:
        def verdicts(self, pictures, prompts):
            return [Verdict(each.resize((1, 1)).getpixel((0, 0))[0] / 255, None, 1.0) for each in pictures]

    monkeypatch.setattr("jedi_diffusion.choosing.judge_of", lambda name, references: Red())


def test_the_best_of_the_draws_is_kept_and_the_choice_recorded(red_is_best, generate, jedi, tmp_path) -> None:
    drawn = {}
    for number in range(3):
        done = generate(*PROMPTS, "--seed", 5 + 1_000_000 * number, "--out", tmp_path / f"draw{number}")
        assert done.status == 0, done.err
    done = generate(*PROMPTS, "--seed", 5, "--choose-best", 3, "--batch", 2)
    assert done.status == 0, done.err
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (settings["options"]["choose_best"], settings["options"]["judge"]) == (3, None)
    for row in settings["pictures"]:
        chosen = row["chosen"]
        assert [each["seed"] for each in chosen["draws"]] == [5, 1_000_005, 2_000_005]
        best = max(chosen["draws"], key=lambda each: each["identity"])
        assert chosen["seed"] == best["seed"]
        stem = row["file"].removesuffix("_5.png")
        number = (chosen["seed"] - 5) // 1_000_000
        with Image.open(tmp_path / "out" / row["file"]) as kept:
            drawn = Image.open(tmp_path / f"draw{number}" / f"{stem}_{chosen['seed']}.png")
            assert kept.tobytes() == drawn.tobytes()
        assert read_parameters(tmp_path / "out" / row["file"])["chosen"] == chosen
    again = jedi("generate", "--from", tmp_path / "out" / "settings.json", "--out", tmp_path / "again")
    assert again.status == 0, again.err
    for row in settings["pictures"]:
        first, second = ((tmp_path / each / row["file"]).read_bytes() for each in ("out", "again"))
        assert first == second


def test_a_batch_keeps_what_is_chosen_and_goes_on(red_is_best, jedi, joint_model, photo, tmp_path) -> None:
    line = {
        "reference": [photo.name],
        "prompt": ["a robot", "a dog"],
        "steps": 2,
        "size": 32,
        "choose_best": 2,
    }
    (photo.parent / "jobs.jsonl").write_text(json.dumps(line | {"name": "one"}))
    words = ("batch", photo.parent / "jobs.jsonl", "--model", joint_model, "--out", tmp_path / "made")
    done = jedi(*words)
    assert done.status == 0, done.err
    settings = tmp_path / "made" / "one" / "settings.json"
    before = json.loads(settings.read_text())["pictures"]
    assert all("chosen" in row for row in before)
    (tmp_path / "made" / "one" / before[0]["file"]).unlink()
    done = jedi(*words)
    assert "1 new pictures" in done.out
    assert json.loads(settings.read_text())["pictures"] == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--choose-best", 0), "--choose-best is 0, but must lie between 1 and 64"),
        (("--choose-best", 2, "--joint-targets"), "leave --joint-targets out"),
        (("--choose-best", 2, "--attention-map", "0.5,0.5"), "leave --attention-map out"),
        (
            ("--choose-best", 64, "--images-per-prompt", 200),
            "200 pictures are asked for and 64 drawn",
        ),
        (("--choose-best", 2, "--judge", "mother"), "--judge"),
    ],
)
def test_what_does_not_go_together_is_said_in_a_sentence(generate, words, said) -> None:
    done = generate(*words)
    assert done.status == 2
    assert said in done.err
