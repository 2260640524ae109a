"""`jedi evaluate` with a recipe of the paper's tables: the smallest run, faults, the quick recipe."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import yaml
from small_paper import small_recipe

from jedi_diffusion.cli import paper_tables
from jedi_diffusion.paper import training
from jedi_diffusion.paper.pieces import piece_lock
from jedi_diffusion.paper.plan import Plan
from jedi_diffusion.paper.recipe import PaperRecipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(small_recipe(tables=["null_set", "10"])))
    return path


def test_a_small_run_goes_on_after_ctrl_c_and_is_not_made_twice(jedi, recipe, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    words = ["evaluate", recipe, "--out", out, "--device", "cpu"]

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(paper_tables, "SHEET_SETS", 1)
        patch.setattr(paper_tables.Work, "_personalizer", stopped)
        assert jedi(*words).status == 130
    with monkeypatch.context() as patch:
        for name in ("StageLoop", "TrainingRun"):  # the trainings are done
            patch.setattr(training, name, pytest.fail)
        done = jedi(*words)
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

    for name in ("StageLoop", "TrainingRun", "open_network"):
        monkeypatch.setattr(training, name, pytest.fail)
    pictures = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.png")}
    assert len(pictures) == 2 * 2
    again = jedi(*words)
    assert again.status == 0, again.err
    assert json.loads((out / "tables.json").read_text()) == told
    assert pictures == {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.png")}
    monkeypatch.undo()

    other = jedi(*words, "--set", "training.steps=3")
    assert other.status == 2
    assert "joint-6 was made by another recipe (another stage)" in other.err


def test_processes_on_one_folder_share_the_methods(tmp_path, monkeypatch) -> None:
    """What another process is at comes last, once that process has left it."""
    plan = Plan(PaperRecipe.model_validate(small_recipe(tables=["7"])))
    methods = list(dict.fromkeys(cell.method for cell in plan.cells))
    busy, made = methods[1], []
    with ExitStack() as other:
        assert other.enter_context(piece_lock(tmp_path, busy))

        def make(work: paper_tables.Work, method: str, done: dict[str, object]) -> None:
            made.append(method)
            if len(made) == len(methods) - 1:
                other.close()

        monkeypatch.setattr(paper_tables.Work, "_make", make)
        monkeypatch.setattr(paper_tables.Work, "_write", lambda *_: [])
        monkeypatch.setattr(training.Trainings, "train_backbone", lambda _: None)
        monkeypatch.setattr(paper_tables, "SHEET_SETS", 0)
        paper_tables.Work(plan.recipe, plan, tmp_path, torch.device("cpu")).run()
    assert made == [*(each for each in methods if each != busy), busy]


def test_a_dry_run_trains_nothing(jedi, recipe, tmp_path) -> None:
    done = jedi("evaluate", recipe, "--out", tmp_path / "out", "--dry-run", "--device", "cpu")
    assert done.status == 0
    assert "hours at the recipe's rates" in done.out
    assert not (tmp_path / "out").exists()


def test_faults_in_a_recipe_are_one_sentence(jedi, recipe, tmp_path) -> None:
    words = ["evaluate", recipe, "--out", tmp_path / "out", "--device", "cpu", "--set"]
    wrong = jedi(*words, "tables=[2, 13]")
    assert wrong.status == 2
    assert "does not fit: tables" in wrong.err
    synthesis = jedi(*words, "synthesis={recipe: absent.yaml}", "--set", 'tables=["8"]')
    assert synthesis.status == 2
    assert "There is no recipe absent.yaml for `jedi synthesize`" in synthesis.err


@pytest.mark.slow
def test_the_quick_recipe_fills_every_table(jedi, tmp_path) -> None:
    done = jedi("evaluate", "paper_tables_quick", "--out", tmp_path / "out", "--device", "cpu")
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
