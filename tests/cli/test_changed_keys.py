"""A run that goes on with other keys of its recipe: those it takes, those it is told to take, no others."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from jedi_diffusion.files import RunFolder, changed_keys
from jedi_diffusion.recipes import has_key, is_among
from jedi_diffusion.train.config import Recipe
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.trainer.state import checkpoints
from tests.helpers.tiny_runs import STAGED, recipe, save_base, save_subjects


def test_what_differs_is_named_by_its_whole_key() -> None:
    before = {"a": 1, "b": {"c": [1, {"d": 2}], "gone": 3}, "e": [1]}
    after = {"a": 1, "b": {"c": [1, {"d": 4}], "new": {"f": 5}}, "e": [1, 2]}
    assert changed_keys(before, before) == {}
    assert changed_keys(before, after) == {
        "b.c.1.d": (2, 4),
        "b.gone": (3, None),
        "b.new": (None, {"f": 5}),
        "e": ([1], [1, 2]),
    }


def test_a_refusal_names_five_keys(tmp_path: Path) -> None:
    RunFolder(tmp_path).open({str(number): 0 for number in range(7)})
    with pytest.raises(Exception, match=r"\(another 0, 1, 2, 3, 4 and 2 more\): choose another folder"):
        RunFolder(tmp_path).open({str(number): 1 for number in range(7)})


def test_free_and_fixed_keys_are_keys_of_the_recipes(tmp_path: Path) -> None:
    joint = JointRecipe.model_validate(recipe(tmp_path, tmp_path))
    for each in (joint, Recipe.model_validate(STAGED)):
        told = each.model_dump(mode="json")
        assert all(has_key(told, key) for key in (*each.free_keys, *each.fixed_keys))
        assert not any(has_key(told, f"{key}.more") for key in each.free_keys if key != "records")
    assert is_among("records.log_every", JointRecipe.free_keys)
    assert not is_among("records_of", JointRecipe.free_keys)
    assert not is_among("training", JointRecipe.free_keys)
    assert has_key({"a": [{"b": None}]}, "a.0.b")
    assert not has_key({"a": [{"b": None}]}, "a.1.b")
    assert Recipe.free_keys == ("save_minutes", "sample_minutes")


def test_a_run_goes_on_with_what_decides_no_result_and_with_what_it_is_told(
    jedi: Callable, tmp_path: Path
) -> None:
    base, subjects = save_base(tmp_path / "base"), save_subjects(tmp_path / "photos")
    for name in ("0.png", "1.png"):  # two of three
        (subjects / "thing 1" / name).write_bytes(b"no picture")
    file, run = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(recipe(base, subjects, training__steps=2, training__batch=8)))

    def train(*words: object) -> object:
        return jedi("train", file, "--out", run, "--device", "cpu", *words)

    first = train()
    assert first.status == 0, first.err
    lost = len((run / "quarantine.jsonl").read_text().splitlines())
    assert first.out.endswith(f"model (unusable items of the data: {lost}, in {run / 'quarantine.jsonl'})\n")
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["unusable"] == lost > 0
    begun = json.loads((run / "recipe.json").read_text())
    free = ("--set", "records.keep_last=1", "--set", "training.micro_batch=3")
    more = ("--set", "training.steps=3", "--set", "training.learning_rate=1e-4")
    refused = train(*free, *more)
    assert refused.status == 2
    assert "(another training.steps, training.learning_rate): choose another folder" in refused.err
    assert "--allow-change KEY" in refused.err
    half = train(*free, *more, "--allow-change", "training.steps")
    assert (half.status, "(another training.learning_rate)" in half.err) == (2, True)
    assert json.loads((run / "recipe.json").read_text()) == begun
    assert not (run / "changes.jsonl").exists()

    done = train(*free, *more, "--allow-change", "training.steps", "--allow-change", "training.learning_rate")
    assert done.status == 0, done.err
    assert checkpoints(run / "state")[-1].name == "step-00000003"
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3
    assert rows[-1]["learning_rate"] == pytest.approx(1e-4)
    changes = [json.loads(line) for line in (run / "changes.jsonl").read_text().splitlines()]
    assert {each["key"]: (each["before"], each["after"]) for each in changes} == {
        "training.steps": (2, 3),
        "training.learning_rate": (1e-3, 1e-4),
        "training.micro_batch": (4, 3),
        "records.keep_last": (2, 1),
    }
    assert {(each["stage"], each["step"]) for each in changes} == {(None, 2)}

    again = train(*free, *more)  # what was allowed is the run's recipe now
    assert again.status == 0, again.err
    assert len((run / "changes.jsonl").read_text().splitlines()) == 4
    for key, message in (
        ("training.step", "has no such key"),
        ("base", "a run cannot change"),
        ("data", "cannot"),
    ):
        other = train("--allow-change", key)
        assert (other.status, message in other.err) == (2, True), other.err
    elsewhere = train(*free, *more, "--set", "seed=1")
    assert (elsewhere.status, "(another seed)" in elsewhere.err) == (2, True)
