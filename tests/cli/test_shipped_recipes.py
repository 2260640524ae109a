"""Recipes that come with the package: they are listed, taken by name from anywhere, and printed."""

import json
from pathlib import Path
from typing import get_args

import pytest

from jedi_diffusion.errors import RecipeError
from jedi_diffusion.recipes import CONFIGS, Command, find_recipe, shipped

COMMANDS = get_args(Command)


def test_every_recipe_is_listed_with_what_it_is_for(jedi) -> None:
    lines = jedi("recipes").out.splitlines()
    assert len(lines) == len(list(CONFIGS.rglob("*.yaml"))) > 9
    for line in lines:
        assert line[0:5] == "jedi "
        assert line.endswith(".")
        assert len(line.split()) > 6
    rows = json.loads(jedi("recipes", "--json").out)
    assert [f"jedi {row['command']} {row['name']}" for row in rows] == [
        line.partition("  ")[0] for line in lines
    ]
    assert all(Path(row["path"]).is_file() for row in rows)
    some = jedi("recipes", "evaluate").out.splitlines()
    assert [each.split() for each in some] == [each.split() for each in lines if " evaluate " in each]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_is_enough_in_any_folder(command, jedi, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("toybox", "toybox.yaml", "configs/toybox.yaml"):
        assert find_recipe(name, command) == CONFIGS / command / "toybox.yaml"
    done = jedi(command, "toybox", "--out", "run", "--device", "cpu", "--dry-run")
    assert done.status == 0, done.err
    assert '"name": "toybox' in done.out
    assert not list(tmp_path.iterdir())


def test_a_file_comes_before_a_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toybox").mkdir()  # a folder is no recipe
    assert find_recipe("toybox", "train") == CONFIGS / "train" / "toybox.yaml"
    (tmp_path / "toybox.yaml").write_text("name: mine\n")
    assert find_recipe("toybox.yaml", "train").read_text() == "name: mine\n"


@pytest.mark.parametrize("name", ["toybx", "toybx.yaml", "mine/toybox.yaml", "configs/toybox.json", "paper"])
def test_an_unknown_name_is_answered_with_the_known(name) -> None:
    known = ", ".join(shipped("train"))
    with pytest.raises(RecipeError, match=rf"no recipe {name} for `jedi train`: .* {known}\.$"):
        find_recipe(name, "train")


def test_a_recipe_is_printed_as_it_stands(jedi) -> None:
    assert jedi("recipes", "train", "sdxl").out == shipped("train")["sdxl"].read_text()
    done = jedi("recipes", "train", "nope")
    assert done.status == 2
    assert "jedi: There is no recipe nope" in done.err
