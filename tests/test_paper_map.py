"""docs/paper_map.md: complete, and every name, command, option and file that it gives exists."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from jedi_diffusion.cli import find_command
from jedi_diffusion.cli.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
MAP = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in MAP.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| Paper"))
]
ITEMS = [
    f"{kind} {number}"
    for kind, last in (("Eq.", 4), ("Algorithm", 1), ("Table", 10), ("Figure", 16))
    for number in range(1, last + 1)
]
# Formulas, arguments and fields stand in backticks too; a name has a dot, a command or a file its beginning.
NAMES = sorted({name for row in ROWS for name in re.findall(r"`([a-z_]+\.[\w.]+)`", row[2])})
CALLS = sorted({call for row in ROWS for call in re.findall(r"`(jedi [^`]+)`", row[2])})
FILES = sorted(set(re.findall(r"`((?:benchmarks|tests|configs|docs)/[\w./]+)`", MAP)))
SETTLED = sorted(set(re.findall(r"`((?:diffusion|model|train)\.[\w.]+)`", MAP)) - set(NAMES))


def resolve(name: str) -> object:
    """The object at a dotted name below the package, be it in a module, in a class, or a field of one."""
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(("jedi_diffusion", *parts[:depth])))
        except ModuleNotFoundError:
            continue
        for part in parts[depth:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"jedi_diffusion has no {name}")


@pytest.mark.parametrize("item", ITEMS)
def test_every_equation_table_and_figure_has_one_row_that_answers(item: str) -> None:
    (row,) = (row for row in ROWS if row[0] == item)
    assert row[1]
    assert "`" in row[2] or row[2].startswith("not yet")


@pytest.mark.parametrize("name", NAMES + SETTLED)
def test_names_exist(name: str) -> None:
    assert resolve(name) is not None


@pytest.mark.parametrize("call", CALLS)
def test_commands_and_their_options_exist(call: str) -> None:
    words = call.split()[1:]
    command, rest = find_command(words)
    module = "options" if command == "generate" else COMMANDS[command].module
    source = inspect.getsource(importlib.import_module(f"jedi_diffusion.cli.{module}"))
    for word in rest:
        assert word.startswith("--"), call
        assert re.search(rf"^    {word[2:].replace('-', '_')}: ", source, re.MULTILINE), f"{call}: {word}"


@pytest.mark.parametrize("file", FILES)
def test_files_exist(file: str) -> None:
    assert (ROOT / file).is_file()
