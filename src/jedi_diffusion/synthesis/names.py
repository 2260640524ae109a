"""Names of objects that training sets are made of: the shipped list, and lists of the user's own.

The paper starts from "a list of common objects" (section 3.1), about 2,000 categories (Table 8), which is not
public. The shipped list is made from WordNet's nouns by tools/object_names.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import lines_of, read_text

MAX_LETTERS = 80
"""Longest name that is accepted."""
OTHER = "other"
"""Category of a name that is in no list."""


@dataclass(frozen=True)
class ObjectName:
    """A thing as it is called ("polar bear"), without an article, and what kind of thing it is ("mammal")."""

    name: str
    category: str = OTHER


@cache
def object_names() -> tuple[ObjectName, ...]:
    """Return the shipped list: common physical objects and animals, by category and then by name."""
    text = files(__package__).joinpath("object_names.tsv").read_text(encoding="utf-8")
    return tuple(ObjectName(*line.split("\t")) for line in lines_of(text))


def read_object_names(path: str | Path) -> tuple[ObjectName, ...]:
    """Return a list of the user's own: a name a line, or a name, a tab and its category; "#" begins a comment
    line.

    Without a category a name has the shipped list's, or `OTHER`. Raises UsageError naming file, line and
    fault.
    """
    names = tuple(_numbered(path, lines_of(read_text(path, UsageError))))
    if not names:
        raise UsageError(f"The list of objects {path} holds no name: write one a line.")
    return names


def _numbered(path: str | Path, lines: Iterable[str]) -> Iterable[ObjectName]:
    categories = {shipped.name.lower(): shipped.category for shipped in reversed(object_names())}
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        columns = [" ".join(column.split()) for column in line.split("\t")]
        name = columns[0]
        if fault := _fault(columns, seen.get(name.lower())):
            raise UsageError(f"Line {number} of the list of objects {path} {fault}.")
        seen[name.lower()] = number
        category = columns[1] if len(columns) == 2 else categories.get(name.lower(), OTHER)
        yield ObjectName(name, category)


def _fault(columns: list[str], earlier: int | None) -> str | None:
    """Return what is wrong with a line, None for nothing."""
    if len(columns) > 2:
        return f"has {len(columns)} columns: write a name, or a name, a tab and its category"
    if not all(columns):
        return "has an empty column: write a name, or a name, a tab and its category"
    if (longest := max(map(len, columns))) > MAX_LETTERS:
        return f"has a column of {longest} letters, more than the {MAX_LETTERS} that are accepted"
    if not all(column.isprintable() for column in columns):
        return "holds a control character: remove it"
    if not any(letter.isalpha() for letter in columns[0]):
        return f"has no letter in its name {columns[0]!r}"
    if earlier is not None:
        return f"has the name {columns[0]!r} of line {earlier} again: keep one of them"
    return None
