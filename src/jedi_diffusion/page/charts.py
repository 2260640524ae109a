"""Charts of a report: bars with their numbers, and lines over a range. The page draws them in both themes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

WIDTH, HEIGHT = 760, 330  # of a chart, in its own units; it is scaled to the page
LEFT, TOP, RIGHT, BOTTOM = 48, 28, 740, 276  # of the part where lines are


@dataclass(frozen=True)
class Bars:
    """A bar for each (label, number >= 0), with the number and its part of `total` (None: of their sum)."""

    title: str
    bars: Sequence[tuple[str, int]]
    note: str = ""
    total: int | None = None

    def rows(self) -> list[tuple[str, str, float]]:
        """(label, number in words, length in percent of the longest) of each bar."""
        total = sum(number for _, number in self.bars) if self.total is None else self.total
        longest = max((number for _, number in self.bars), default=0)
        return [
            (label, f"{number:,} ({number / max(total, 1):.1%})", round(100 * number / max(longest, 1), 2))
            for label, number in self.bars
        ]


class Frame(NamedTuple):
    """A chart of lines as it is drawn, in units of WIDTH x HEIGHT."""

    columns: list[tuple[float, str]]
    rows: list[tuple[float, str]]
    marks: list[tuple[float, str]]
    lines: list[tuple[str, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    top: int = TOP
    right: int = RIGHT
    bottom: int = BOTTOM


@dataclass(frozen=True)
class Lines:
    """Numbers in 0..1 over a range: {name: [(x, y), ...]}; points whose y is NaN are left out.

    along: what x is. marks: upright lines, (x, label). ticks: where x is labelled, fifths if not given.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    along: str
    marks: Sequence[tuple[float, str]] = field(default=())
    note: str = ""
    ticks: Sequence[float] = ()

    def frame(self) -> Frame:
        """Return where everything is drawn."""
        places = [x for points in self.lines.values() for x, _ in points] + [x for x, _ in self.marks]
        low, high = min(places, default=0.0), max(places, default=1.0)
        span = high - low or 1.0

        def across(x: float) -> float:
            return round(LEFT + (x - low) / span * (RIGHT - LEFT), 1)

        def up(y: float) -> float:
            return round(BOTTOM - y * (BOTTOM - TOP), 1)

        steps = [number / 5 for number in range(6)]
        columns = [(across(low + span * step), f"{low + span * step:.2f}") for step in steps]
        return Frame(
            columns=[(across(x), f"{x:g}") for x in self.ticks] or columns,
            rows=[(up(step), f"{step:.1f}") for step in steps],
            marks=[(across(x), label) for x, label in self.marks],
            lines=[
                (name, " ".join(f"{across(x)},{up(y)}" for x, y in points if not math.isnan(y)))
                for name, points in self.lines.items()
            ],
        )
