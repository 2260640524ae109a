"""What the tables say, in sentences made from their numbers: text and numbers cannot part.

Every function reads the plain JSON of `tables.json` (`report.as_json`), so that a published file says what
the page of its run says. Intervals of differences are told where the file has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from textwrap import fill
from typing import Any

import numpy as np

from experiments.paper_tables import numbers
from experiments.paper_tables.ordering import Agreement, answer, chance
from experiments.paper_tables.tables import HERE, column_of, timing_agreement
from jedi_diffusion.estimates import Estimate
from jedi_diffusion.evaluation.outputs import NONE

Record = Mapping[str, Any]
IDENTITY, PROMPT = HERE[numbers.DINO], HERE[numbers.CLIP_T]
SHORT = {"toy-T": "prompt", "toy-ID": "identity", "Mtoy-ID": "identity of cut-outs"}
MOST_LISTED = 6
"""Rows up to which a table's are named one by one."""
WIDTH = 120
FEW_TIMES = 5
"""Repetitions below which a timing is said to rest on few."""


def findings(told: Record) -> list[str]:
    """Sentences about all tables of a record, in order of the page."""
    tables = told["tables"]
    found = list(_totals(tables))
    found += [_levels(key, table) for key, table in tables.items() if table["paper"]]
    found += _amounts(tables.get("3"))
    found += _strategies(told["figure_11"])
    found += _references(tables.get("references"))
    for key in ("coupling", "null_set", "steps"):
        found += [_levels(key, tables[key])] if key in tables else []
    found += _times(told["table_10"])
    if not all("differences" in table for table in tables.values()):
        found.append(
            "These tables were written without values of single subjects and intervals of differences: "
            "whether two numbers differ by more than chance is told by the counts of clear pairs alone."
        )
    return found


def as_markdown(told: Record) -> str:
    """Return the orderings as a table, then the sentences as a list in lines of a page's width."""
    lines = [f"| | | {' | '.join(HERE.values())} | seconds |", f"|---|---|{'---|' * (len(HERE) + 1)}"]
    for title, found in _agreements(told).items():
        briefs = {each.score.split()[0]: each.brief for each in found}
        cells = [briefs.get(name, NONE) for name in (*HERE.values(), "seconds")]
        lines.append(f"| {' | '.join([title, answer(found), *cells])} |")
    return "\n".join([*lines, "", *map(_item, findings(told))])


def _item(text: str) -> str:
    return fill(f"- {text}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _agreements(told: Record) -> dict[str, list[Agreement]]:
    """By table; what chance keeps is computed anew, since older files do not have it."""
    found: dict[str, list[Agreement]] = {}
    for table in (each for each in told["tables"].values() if each["paper"]):
        rows = [row for row in table["paper"]["rows"] if row in table["here"]]
        for each in table["agreement"]:
            score = each["score"].split()[-1]
            theirs = np.array([table["paper"]["rows"][row][score] for row in rows])
            rank = Estimate(**each["correlation"]) if each["correlation"] else None
            counts = {name: each[name] for name in ("pairs", "kept", "clear", "turned")}
            found.setdefault(table["title"], []).append(
                Agreement(each["score"], rank, **counts, chance=chance(theirs, each["kept"]))
            )
    for what, each in told["table_10"].items():
        found[f"Table 10, {what}"] = timing_agreement(each["seconds"])
    return found


def mean(table: Record, name: str, column: str) -> float:
    """Return the mean of a row's score."""
    return float(table["here"][name]["scores"][column]["mean"])


def difference(table: Record, column: str, name: str, other: str) -> str:
    """Return how much a row has more than another, with its 95% interval where the record has one."""
    for each in table.get("differences", {}).get(column, ()):
        if {each["of"], each["minus"]} == {name, other}:
            sign = 1 if each["of"] == name else -1
            low, high = sorted((sign * each["low"], sign * each["high"]))
            return f"{_signed(sign * each['mean'])} ({low:.2f} to {high:.2f})"
    return _signed(mean(table, name, column) - mean(table, other, column))


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # no -0.00


def _totals(tables: Mapping[str, Record]) -> Iterator[str]:
    """Yield pairs of rows of all tables together, score by score."""
    for name in HERE.values():
        agreements = [
            each
            for table in tables.values()
            for each in table["agreement"]
            if each["score"].split()[0] == name
        ]
        pairs, kept, clear, turned = (
            sum(each[what] for each in agreements) for what in ("pairs", "kept", "clear", "turned")
        )
        if pairs:
            yield (
                f"{SHORT[name].capitalize()} ({name}): of {pairs} pairs of rows {kept} are in the paper's "
                f"order, {clear} pairs clearly so; {turned} are clearly reversed. Rows in random order would "
                f"keep {pairs / 2:g}. Tables share methods, so the pairs are not independent."
            )


def _levels(key: str, table: Record) -> str:
    """Return the rows of a table by identity and by prompt score, highest first."""
    texts = []
    for score in (numbers.DINO, numbers.CLIP_T):
        column = column_of(key, score)
        rows = {
            each["label"]: each["scores"][column]["mean"]
            for each in table["here"].values()
            if each["scores"].get(column)
        }
        order = sorted(rows, key=lambda label: -rows[label])
        listed = " > ".join(f"{label} {rows[label]:.2f}" for label in order)
        if len(order) > MOST_LISTED:
            listed = f"{rows[order[0]]:.2f} ({order[0]}) to {rows[order[-1]]:.2f} ({order[-1]})"
        texts.append(f"{SHORT[HERE[score]]}: {listed}")
    return f"{table['title']}, {'; '.join(texts)}."


def _kept(order: Mapping[str, float], here: Mapping[str, float]) -> tuple[int, int]:
    """Return pairs that are in the same order on both sides, of those that differ on the first."""
    pairs = [(one, two) for one, two in combinations(here, 2) if order[one] != order[two]]
    same = [(order[one] - order[two]) * (here[one] - here[two]) > 0 for one, two in pairs]
    return sum(same), len(same)


def _amounts(table: Record | None) -> list[str]:
    """Table 3 without the amount 0, which is another kind of training."""
    if table is None:
        return []
    rows = [name for name in table["here"] if name != "0"]
    texts = []
    for score, name in HERE.items():
        paper = {row: table["paper"]["rows"][row][score] for row in rows}
        kept, pairs = _kept(paper, {row: mean(table, row, column_of("3", score)) for row in rows})
        texts.append(f"{kept} of {pairs} for {name}")
    return [
        f"Among the amounts of same-subject sets, 0 aside, pairs in the paper's order: {', '.join(texts)}."
    ]


def _strategies(figure: Mapping[str, Sequence[Record]]) -> list[str]:
    """Return whether Table 6's order comes from the strategy or from the scale of the references."""
    text_first, image_first = figure.get(numbers.TEXT_FIRST), figure.get(numbers.IMAGE_FIRST)
    if not text_first or not image_first:
        return []
    if all("image_scale" in each for each in (*text_first, *image_first)):
        return _at_equal_scales(text_first, image_first)
    more, texts = [], []
    for place in (0, -1):
        one, two = text_first[place], image_first[place]
        more.append(one[IDENTITY] > two[IDENTITY])
        texts.append(
            f"where it is {one['scale']:g}, identity is {one[IDENTITY]:.2f} (text first) and "
            f"{two[IDENTITY]:.2f} (image first)"
        )
    turns = (
        "So the order turns with the scale" if more[0] != more[1] else "The order is the same at both ends"
    )
    return [
        "Table 6's two-stage rows differ in more than the strategy: the first stage's scale was kept and the "
        "second's varied, which is that of the references in text first and that of the text in image first; "
        f"{', '.join(texts)}. {turns}; only a sweep of both scales compares the strategies."
    ]


def _at_equal_scales(text_first: Sequence[Record], image_first: Sequence[Record]) -> list[str]:
    """Text first minus image first where both have the same two scales."""

    def by_scales(points: Sequence[Record]) -> dict[tuple[float, float], Record]:
        return {(each["text_scale"], each["image_scale"]): each for each in points}

    ones, twos = by_scales(text_first), by_scales(image_first)
    shared = [scales for scales in ones if scales in twos]
    more = {name: sum(ones[each][name] > twos[each][name] for each in shared) for name in (IDENTITY, PROMPT)}
    high = [scales for scales in shared if scales[1] > scales[0]]

    def average(points: Mapping[tuple[float, float], Record], name: str, at: Sequence[Any]) -> float:
        return sum(points[each][name] for each in at) / len(at)

    low = [scales for scales in shared if scales not in high]
    texts = [
        f"Table 6 at equal scales, {len(shared)} pairs of the text's and the references': text first has "
        f"more identity than image first in {more[IDENTITY]}, and a higher prompt score in {more[PROMPT]}"
    ]
    if high and low:
        both = [average(points, IDENTITY, at) for at in (high, low) for points in (ones, twos)]
        texts.append(
            f"where the references' scale is the larger, identity is {both[0]:.2f} (text first) and "
            f"{both[1]:.2f} (image first), where the text's is, {both[2]:.2f} and {both[3]:.2f}"
        )
    return [f"{'; '.join(texts)}."]


def _references(table: Record | None) -> list[str]:
    """Return what more references bring: from the first to the second, and from there to the last."""
    if table is None or len(table["here"]) < 3:
        return []
    rows = sorted(table["here"], key=int)
    texts = []
    for score in (numbers.DINO, numbers.MDINO, numbers.CLIP_T):
        column = column_of("references", score)
        listed = ", ".join(f"{mean(table, row, column):.2f}" for row in rows)
        texts.append(
            f"{SHORT[HERE[score]]} {listed}: {difference(table, column, rows[1], rows[0])} from {rows[0]} to "
            f"{rows[1]}, {difference(table, column, rows[-1], rows[1])} from {rows[1]} to {rows[-1]}"
        )
    return [f"With {', '.join(rows)} references: {'; '.join(texts)}."]


def _times(table: Mapping[str, Record]) -> list[str]:
    found = []
    for what, each in table.items():
        times = min(len(seconds) for seconds in each["seconds"].values())
        few = ", too few to order what lies close together" if times < FEW_TIMES else ""
        found.append(f"Table 10, {what}: {times} repetitions of each method{few}.")
    return found
