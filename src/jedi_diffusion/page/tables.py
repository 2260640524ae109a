"""A table of a report, and how it is written in Markdown, in LaTeX and on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLUMN = 28
"""Characters of a column on a terminal, in which a score has its interval."""
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the rows. note: a paragraph a line."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"The table {self.title!r} has rows that are not {len(self.head)} cells long.")


def markdown(table: Table) -> str:
    """Return the table with its title and note, ending in a line break."""
    lines = [_cells(table.head), "|---" + "|---:" * (len(table.head) - 1) + "|"]
    lines += [_cells(row) for row in table.rows]
    parts = [f"**{table.title}**", "\n".join(lines), *table.note.splitlines()]
    return "\n\n".join(parts) + "\n"


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return cells for a terminal: the first column as wide as it needs to be, the others COLUMN wide."""
    width = max(len(row[0]) for row in (head, *rows)) + 2
    lines = (f"{row[0]:<{width}}" + "".join(f"{cell:<{COLUMN}}" for cell in row[1:]) for row in (head, *rows))
    return "\n".join(line.rstrip() for line in lines)


def latex(table: Table) -> str:
    """Return the table as a `table` environment that needs no package."""
    body = [f"{_row(row)} \\\\" for row in table.rows]
    lines = [
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{escape_latex(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
        r"\hline",
        f"{_row(table.head)} \\\\",
        r"\hline",
        *body,
        r"\hline",
        r"\end{tabular}",
        *([f"\\par {escape_latex(table.note)}"] if table.note else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(escape_latex(cell) for cell in cells)
