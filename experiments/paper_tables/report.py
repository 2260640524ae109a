"""The page of the paper's tables and its JSON: tables, curves, trainings, and pictures side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.paper_tables import numbers
from experiments.paper_tables.cells import Scored
from experiments.paper_tables.findings import findings
from experiments.paper_tables.ordering import Agreement, answer, verdict
from experiments.paper_tables.pieces import write_json
from experiments.paper_tables.plan import Cell
from experiments.paper_tables.recipe import PaperRecipe
from experiments.paper_tables.tables import (
    HERE,
    STANDING_IN,
    TableResult,
    timing_agreement,
    timing_table,
)
from jedi_diffusion import __version__
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.evaluation.outputs import NONE, shown
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.page.charts import Lines
from jedi_diffusion.page.html import Gallery, Part, Strip, Text, render_page
from jedi_diffusion.page.tables import Table, markdown
from jedi_diffusion.pictures import open_picture

SIDE = 136
"""Pixels of the pictures on the page, at most."""
SHOWN = 6
"""Subjects whose pictures are shown."""
IDENTITY, PROMPT = "toy-ID, inputs", "toy-T"


@dataclass(frozen=True)
class Report:
    """All that is known so far.

    trainings: parameters and seconds by name; sweeps: the cells of Table 6 by strategy with their scores;
    seconds: of Table 10, by what was measured; data: Table 8's similarities by column, or None; known: the
    known answers; left: pieces that are not finished.
    """

    recipe: PaperRecipe
    device: str
    tables: Sequence[TableResult]
    trainings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sweeps: Mapping[str, Sequence[tuple[Cell, Scored]]] = field(default_factory=dict)
    seconds: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    known: Sequence[Scored] = ()
    strips: Sequence[Strip] = ()
    left: int = 0


def write_report(report: Report, out: Path) -> list[Path]:
    """Write tables.html, tables.json and tables.md into a folder and return them. Raises OutputError."""
    home = make_folder(out)
    parts = parts_of(report)
    page, record, text = (home / f"tables.{ending}" for ending in ("html", "json", "md"))
    write_file(page, render_page("The paper's tables, on the toybox", summary(report), parts).encode())
    write_json(record, as_json(report))
    write_file(text, "\n".join(markdown(part) for part in parts if isinstance(part, Table)).encode())
    return [page, record, text]


def summary(report: Report) -> str:
    recipe, wanted = report.recipe, report.recipe.set
    unfinished = f" Not finished: {report.left} pieces are still to be made." if report.left else ""
    return (
        f"{recipe.name}: pictures of {recipe.size} pixels, {wanted.subjects} subjects that no training has "
        f"seen, prompts for each: {wanted.prompts}, pictures for each prompt: {wanted.samples}; every method "
        f"trained for {recipe.training.steps:,} steps of {recipe.training.batch} pictures from one backbone, "
        f"on {report.device}.{unfinished}"
    )


def parts_of(report: Report) -> list[Part]:
    """Return everything on the page, in order."""
    parts: list[Part] = [_explained(report)]
    agreements = {each.title: each.agreements for each in report.tables if each.key in numbers.TABLES}
    for part in report.tables:
        parts.append(part.table())
        if part.key == "6":
            parts += _curves(report)
        if part.key == "references":
            parts.append(_reference_curve(part))
    for what, seconds in report.seconds.items():
        parts.append(timing_table(f"{numbers.TABLES['10'].title}, {what}", seconds))
        agreements[parts[-1].title] = timing_agreement(seconds)
    if report.data is not None:
        parts.append(_data_table(report.data))
    if agreements:
        parts.insert(1, _answers(agreements))
        parts.insert(2, Text("What the numbers say", findings(as_json(report))))
    if report.known:
        parts.append(_known_table(report.known))
    if report.trainings:
        parts.append(_trainings(report))
    if report.strips:
        parts.append(
            Gallery("Pictures", report.strips, "The first prompt and seed of the first subjects.", SIDE)
        )
    return parts


def _explained(report: Report) -> Text:
    pairs = ", ".join(f"{ours} for {theirs}" for theirs, ours in HERE.items())
    return Text(
        "What stands beside what",
        [
            "The paper measured photographs with CLIP and DINO; here the toybox's own encoders judge "
            f"renders: {pairs}. Numbers of the two columns are on different scales; what can be compared is "
            "the order of the rows. CLIP-I and MCLIP-I have no counterpart: the toybox's image-text encoder "
            "reads scenes, styles and attributes, not subjects.",
            "For every table of the paper one line says in how many pairs of rows the order is the paper's, "
            "in how many of them clearly so (the 95% interval of the difference, by bootstrap over subjects, "
            "leaves out 0), how many are clearly reversed, and Spearman's rank correlation of the rows with "
            "its interval. Beside them what all orders of the rows keep: mean and the range of 95% of them.",
            STANDING_IN,
        ],
    )


def _answers(agreements: Mapping[str, Sequence[Agreement]]) -> Table:
    """Return all tables at a glance."""
    lines = []
    for title, found in agreements.items():
        briefs = {each.score.split()[0]: each.brief for each in found}
        cells = [briefs.get(name, NONE) for name in (*HERE.values(), "seconds")]
        lines.append([title.partition(",")[0], answer(found), *cells])
    note = (
        "Pairs of rows in the paper's order, what rows in random order keep, and the rank correlation. "
        "Holds: all pairs of all scores are in the paper's order. Does not hold: at least one is clearly "
        "reversed. Open: neither."
    )
    return Table("Does the paper's ordering hold here?", ["", "", *HERE.values(), "seconds"], lines, note)


def _curves(report: Report) -> list[Part]:
    """Figure 11: identity over prompt, and both over the ratio of the two scales."""
    sweeps = report.recipe.sweeps
    if not report.sweeps:
        return []
    ends = f"{sweeps.scales[0]:g} to {sweeps.scales[-1]:g}"
    ordered = {
        name: sorted(points, key=lambda each: _ratio(each[0])) for name, points in report.sweeps.items()
    }
    plane = {
        name: [(_mean(row, PROMPT), _mean(row, IDENTITY)) for _, row in points]
        for name, points in ordered.items()
    }
    over = {
        f"{name}, {what}": [(_ratio(cell), _mean(row, column)) for cell, row in ordered[name]]
        for name in (numbers.TEXT_FIRST, numbers.IMAGE_FIRST)
        if name in ordered
        for what, column in (("toy-ID", IDENTITY), ("toy-T", PROMPT))
    }
    return [
        Lines(
            "Figure 11: identity (up) over prompt (across)",
            plane,
            along="toy-T",
            note=f"Guidance scales {ends}; in the two-stage strategies every two of "
            f"{', '.join(f'{each:g}' for each in sweeps.both)}, by their ratio.",
        ),
        Lines(
            "Figure 11: the ratio of the two scales",
            over,
            along="the references' scale over the text's",
            note="The same pairs of scales for both strategies.",
        ),
    ]


def _image_scale(cell: Cell) -> float | None:
    """Return the scale of the references; None where guidance does not act on them."""
    if cell.mode == "text_only":
        return None
    return cell.guidance if cell.image_guidance is None else cell.image_guidance


def _ratio(cell: Cell) -> float:
    """Return the references' scale over the text's; 1 where there is one scale for both."""
    return 1.0 if cell.image_guidance is None else cell.image_guidance / cell.guidance


def _reference_curve(part: TableResult) -> Lines:
    columns = [part.column(score) for score in HERE]
    lines = {
        column: [(float(name), _mean(row, column)) for name, row in part.rows.items()] for column in columns
    }
    counts = [float(name) for name in part.rows]
    return Lines("Scores against references", lines, along="references", ticks=counts)


def _mean(row: Scored, column: str) -> float:
    estimate = row.scores.get(column)
    return float("nan") if estimate is None else estimate.mean


def _known_table(known: Sequence[Scored]) -> Table:
    names = ["toy-T", "toy-ID, others", "Mtoy-ID, others", "toy-ID, inputs", "copies"]
    lines = [
        [each.name, *(shown(each.scores.get(name), percent=name == "copies") for name in names)]
        for each in known
    ]
    return Table("Known answers, for scale", ["", *names], lines)


def _trainings(report: Report) -> Table:
    lines = [
        [name, f"{facts['parameters'] / 1e6:.2f}M", f"{facts['seconds'] / 60:.1f}"]
        for name, facts in report.trainings.items()
    ]
    minutes = sum(facts["seconds"] for facts in report.trainings.values()) / 60
    return Table(
        "Trainings",
        ["", "parameters trained", "minutes"],
        lines,
        f"In all {minutes:.0f} minutes. A method's number is that of its subjects beside "
        f"{report.recipe.data.views:,} subjects in views of one plain scene; all have equal steps, batch and "
        "draws of sets.",
    )


def _data_table(data: Mapping[str, Any]) -> Table:
    """Table 8: the paper's, and what the synthesis report of the toybox's pipeline says."""
    paper = numbers.TABLES["8"]
    lines = [
        [label, *(f"{each:.3f}" for each in paper.rows[name]), NONE, NONE]
        for name, label in (
            ("S³ dataset", "S³ dataset: 1.6M subjects, ~2K categories"),
            ("Real images", "Real images: 30 subjects, 15 categories"),
        )
    ]
    for column, each in data["similarity"].items():
        cells = [_range(each[name]) for name in ("inside", "between")]
        label = f"toybox: {data['subjects']:,} subjects, {data['categories']} categories"
        lines.append([f"{label} ({column})", NONE, NONE, *cells])
    note = (
        f"Paper: {paper.source}; no ordering to compare. Here mean cosines with 95% intervals over "
        f"{data['sets']:,} sets that `jedi synthesize` made; its own report is in the folder synthesis."
    )
    head = ["", "CLIP-I, paper", "DINO, paper", "inside sets, here", "other subjects of one name, here"]
    return Table(paper.title, head, lines, note)


def _range(each: Mapping[str, float] | None) -> str:
    return NONE if each is None else f"{each['mean']:.3f} ({each['low']:.3f} to {each['high']:.3f})"


def strips_of(wanted: EvaluationSet, folders: Mapping[str, Path]) -> list[Strip]:
    """For the first subjects: the reference, the true picture, and each method's, from its folder of
    pictures; folders: by the methods' names, all for the evaluation set `wanted`.
    """
    strips = []
    for group in list(wanted.groups())[:SHOWN]:
        case = group[0]
        files = {f"reference {number + 1}": case.subject.photos[number].path for number in case.inputs}
        files["true picture"] = case.subject.truths[case.prompt].path
        files |= {name: folder / f"{case.name}.png" for name, folder in folders.items()}
        pictures = [(open_picture(path), name) for name, path in files.items() if path.exists()]
        strips.append(Strip(f"“{case.text}”", pictures))
    return strips


def as_json(report: Report) -> dict[str, Any]:
    """Return everything as plain JSON values."""
    return {
        "format": "jedi paper tables 2",
        "program": f"jedi-diffusion {__version__}",
        "recipe": report.recipe.model_dump(mode="json"),
        "device": report.device,
        "pieces_left": report.left,
        "stand_ins": STANDING_IN,
        "tables": {each.key: each.record() for each in report.tables},
        "figure_11": {
            name: [
                {
                    "text_scale": cell.guidance,
                    "image_scale": _image_scale(cell),
                    "toy-T": _mean(row, PROMPT),
                    "toy-ID": _mean(row, IDENTITY),
                }
                for cell, row in points
            ]
            for name, points in report.sweeps.items()
        },
        "table_8": report.data,
        "table_10": {
            what: {"seconds": dict(seconds), "verdict": verdict(timing_agreement(seconds))}
            for what, seconds in report.seconds.items()
        },
        "trainings": {name: dict(facts) for name, facts in report.trainings.items()},
    }
