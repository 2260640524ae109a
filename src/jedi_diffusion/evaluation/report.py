"""The page of an evaluation: what was compared, tables, and the best, median and worst cases to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jedi_diffusion.evaluation.metrics import COMPARISONS
from jedi_diffusion.evaluation.scoring import Results, RowScores, column
from jedi_diffusion.files import plain_name
from jedi_diffusion.page.html import Gallery, Part, Strip, Text, render_page
from jedi_diffusion.page.tables import Table
from jedi_diffusion.pictures import open_picture

SHOWN = 3
"""Cases of each of best, median and worst."""


def report_page(results: Results, tables: Sequence[Table]) -> str:
    """Return the whole page as HTML, pictures embedded."""
    wanted = results.wanted
    made = [row for row in results.rows if not row.is_baseline]
    summary = (
        f"{len(wanted.subjects)} subjects, {len(wanted.cases)} cases, {wanted.samples} pictures a prompt, "
        f"{wanted.settings['references']} reference(s) each. Methods: {', '.join(row.name for row in made)}."
    )
    parts: list[Part] = [Text("What the numbers are", _explained(results)), *tables]
    parts += [_gallery(results, row) for row in made]
    return render_page(f"Scores on {wanted.name}", summary, parts)


def _explained(results: Results) -> list[str]:
    encoders = "; ".join(f"{each.name} ({each.fingerprint[:16]})" for each in results.encoders)
    compared = "; ".join(f"{name}: {what}" for name, what in COMPARISONS.items())
    lines = [
        f"Image scores are cosines of features with those of true photos. Three comparisons: {compared}. "
        "Numbers of different comparisons, encoders or averages do not compare.",
        f"Encoders, with fingerprints: {encoders}. Average: {results.averaging}.",
        "An oracle, another subject (of the class, where there is one) and the copied input stand beside "
        "every method. An image score above the oracle's is suspicious until the copy rate says otherwise.",
    ]
    if results.masking != "no":
        lost = {row.name: row.not_found for row in results.rows if row.not_found}
        listed = ", ".join(f"{name}: {count}" for name, count in lost.items()) or "none"
        lines.append(
            f"Masked scores (M...) see the subject cut out on white, by masks that were {results.masking}. "
            f"Pictures on which there is no subject count as 0: {listed}."
        )
    return lines


def _gallery(results: Results, row: RowScores) -> Gallery:
    """Return best, median and worst prompts of a method, by the mean over their pictures."""
    name = ranking_column(results)
    groups: dict[tuple[str, int], list[int]] = {}
    for number, answer in enumerate(row.answers):
        groups.setdefault((answer.case.group, answer.case.prompt), []).append(number)
    places = list(groups.values())
    order = np.argsort([-row.values[name][each].mean() for each in places], kind="stable").tolist()
    strips = []
    for what, ranks in ranked(len(order)).items():
        strips += [_strip(row, places[order[rank]], name, f"{what}, rank {rank + 1}") for rank in ranks]
    note = f"{len(order)} prompts ranked by {name}, mean over their pictures."
    return Gallery(f"Cases of {row.name}", strips, note)


def ranked(count: int) -> dict[str, list[int]]:
    """Return which ranks of `count` are shown as best, median and worst; none twice."""
    middle = max(0, count // 2 - SHOWN // 2)
    wanted = {
        "best": range(SHOWN),
        "median": range(middle, middle + SHOWN),
        "worst": range(max(0, count - SHOWN), count),
    }
    seen: set[int] = set()
    chosen = {}
    for what, ranks in wanted.items():
        chosen[what] = [rank for rank in ranks if rank < count and rank not in seen]
        seen.update(chosen[what])
    return chosen


def _strip(row: RowScores, places: Sequence[int], name: str, rank: str) -> Strip:
    case = row.answers[places[0]].case
    references = [case.subject.photos[number].path for number in case.inputs]
    shown = [(open_picture(path), f"reference {plain_name(path.stem)}") for path in references]
    for place in places:
        scores = ", ".join(
            f"{title} {row.values[title][place]:.3f}"
            for title in row.values
            if title == name or ("," not in title and title != "copies")
        )
        copied = "; a copy" if row.values["copies"][place] else ""
        shown.append((open_picture(row.answers[place].picture.path), f"{scores}{copied}"))
    return Strip(f"{rank}: {case.subject.name}, “{case.text}”", shown)


def ranking_column(results: Results) -> str:
    """Return what cases are ranked by: the last encoder's score, against the other photos if there
    are any.
    """
    last = [each.image_column for each in results.encoders if each.image_column][-1]
    name = column(last, "others")
    compared = all(row.scores[name] is not None for row in results.rows if not row.is_baseline)
    return name if compared else column(last, "inputs")
