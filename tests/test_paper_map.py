"""docs/paper_map.md: complete, and every name, command, option and file that it gives exists."""

import re
from pathlib import Path

import pytest
from doc_checks import check_call, resolve

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
FILES = sorted(set(re.findall(r"`((?:benchmarks|tests|docs)/[\w./]+)`", MAP)))
SETTLED = sorted(set(re.findall(r"`((?:diffusion|model|train)\.[\w.]+)`", MAP)) - set(NAMES))


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
    check_call(call.split()[1:])


@pytest.mark.parametrize("file", FILES)
def test_files_exist(file: str) -> None:
    assert (ROOT / file).is_file()
