"""`python -m experiments.paper_tables`: the smallest run, faults, the quick recipe."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml

from experiments.paper_tables import training, work
from experiments.paper_tables.__main__ import main
from experiments.paper_tables.pieces import piece_lock
from experiments.paper_tables.plan import Plan
from experiments.paper_tables.recipe import PaperRecipe
from tests.helpers.small_paper import small_recipe


class Result(NamedTuple):
    """What the command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def tables(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs the command with these words, in this process."""

    def run(*words: object) -> Result:
        capfd.readouterr()
        status = main([str(word) for word in words])
        return Result(status, *capfd.readouterr())

    return run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(small_recipe(tables=["null_set", "10"])))
    return path


def test_a_small_run_goes_on_after_ctrl_c_and_repeats_nothing(tables, recipe, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    words = [recipe, "--out", out, "--device", "cpu"]

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(work, "SHEET_SETS", 1)
        patch.setattr(work.Work, "_personalizer", stopped)
        assert tables(*words).status == 130
    with monkeypatch.context() as patch:
        for name in ("stage_trainer", "TrainingRun"):  # the trainings are done
            patch.setattr(training, name, pytest.fail)
        done = tables(*words)
    assert done.status == 0, done.err
    assert "1 methods from one backbone and 2 scored cells" in done.out
    told = json.loads((out / "tables.json").read_text())
    assert told["pieces_left"] == 0
    assert set(told["tables"]["null_set"]["here"]) == {"joint", "single"}
    assert told["trainings"].keys() == {"backbone", "joint-6"}
    (seconds,) = (each["seconds"] for each in told["table_10"].values())
    assert len(seconds["JeDi"]) == 2
    page = (out / "tables.html").read_text()
    assert "The unconditional set" in page

    for name in ("stage_trainer", "TrainingRun", "open_network"):
        monkeypatch.setattr(training, name, pytest.fail)
    pictures = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.png")}
    assert len(pictures) == 2 * 2
    again = tables(*words)
    assert again.status == 0, again.err
    assert json.loads((out / "tables.json").read_text()) == told
    assert pictures == {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.png")}
    monkeypatch.undo()

    other = tables(*words, "--set", "training.steps=3")
    assert other.status == 2
    assert "joint-6 was made by another recipe (another stage" in other.err


def test_processes_on_one_folder_share_the_methods(tmp_path, monkeypatch) -> None:
    """What another process is at comes last, once that process has left it."""
    plan = Plan(PaperRecipe.model_validate(small_recipe(tables=["7"])))
    methods = list(dict.fromkeys(cell.method for cell in plan.cells))
    busy, made = methods[1], []
    with ExitStack() as other:
        assert other.enter_context(piece_lock(tmp_path, busy))

        def make(_: work.Work, method: str, done: dict[str, object]) -> None:
            made.append(method)
            if len(made) == len(methods) - 1:
                other.close()

        monkeypatch.setattr(work.Work, "_make", make)
        monkeypatch.setattr(work.Work, "_write", lambda *_: [])
        monkeypatch.setattr(training.Trainings, "train_backbone", lambda _: None)
        monkeypatch.setattr(work, "SHEET_SETS", 0)
        work.Work(plan.recipe, plan, tmp_path, torch.device("cpu")).run()
    assert made == [*(each for each in methods if each != busy), busy]


def test_a_dry_run_trains_nothing(tables, recipe, tmp_path) -> None:
    done = tables(recipe, "--out", tmp_path / "out", "--dry-run", "--device", "cpu")
    assert done.status == 0
    assert "hours at the recipe's rates" in done.out
    assert not (tmp_path / "out").exists()


def test_faults_in_a_recipe_are_one_sentence(tables, recipe, tmp_path) -> None:
    words = [recipe, "--out", tmp_path / "out", "--device", "cpu", "--set"]
    wrong = tables(*words, "tables=[2, 13]")
    assert wrong.status == 2
    assert "does not fit: tables" in wrong.err
    synthesis = tables(*words, "synthesis={recipe: absent.yaml}", "--set", 'tables=["8"]')
    assert synthesis.status == 2
    assert "There is no recipe absent.yaml for `jedi synthesize`" in synthesis.err


@pytest.mark.slow
def test_the_quick_recipe_fills_every_table(tables, tmp_path) -> None:
    done = tables("quick", "--out", tmp_path / "out", "--device", "cpu")
    assert done.status == 0, done.err
    told = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert told["pieces_left"] == 0
    for key, table in told["tables"].items():
        assert table["here"], key
        if table["paper"]:
            assert table["here"].keys() == table["paper"]["rows"].keys()
            assert "ordering" in table["verdict"]
    assert told["table_8"]["sets"] > 0
    assert set(told["figure_11"]) == {"Text only", "Joint", "Image first", "Text first"}
