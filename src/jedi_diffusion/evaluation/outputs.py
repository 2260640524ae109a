"""Results as files: scores.json, scores.csv, scores.md, scores.tex and report.html."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jedi_diffusion import __version__
from jedi_diffusion.estimates import Estimate
from jedi_diffusion.evaluation.encoders import TextEncoder
from jedi_diffusion.evaluation.metrics import COMPARISONS, Comparison
from jedi_diffusion.evaluation.report import report_page
from jedi_diffusion.evaluation.scale import scaled_columns
from jedi_diffusion.evaluation.scoring import COPIES, DIVERSITY, Results, RowScores
from jedi_diffusion.files import json_bytes, make_folder, write_file
from jedi_diffusion.page.tables import Table, latex, markdown

NONE = "–"
"""Stands where nothing is compared, or where there is nothing to compare with."""


def write_results(folder: str | Path, results: Results, settings: Mapping[str, Any]) -> list[Path]:
    """Write every form of the results and return the files. settings: what was asked for, as plain JSON.

    Raises OutputError.
    """
    home = make_folder(folder)
    tables = score_tables(results)
    files = {
        "scores.json": json_bytes(record_of(results, settings), indent=2),
        "scores.csv": as_csv(results).encode(),
        "scores.md": "\n".join(markdown(table) for table in tables).encode(),
        "scores.tex": "\n".join(latex(table) for table in tables).encode(),
        "report.html": report_page(results, tables).encode(),
    }
    for name, data in files.items():
        write_file(home / name, data)
    return [home / name for name in files]


def record_of(results: Results, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores, and everything that decides them, as plain JSON values."""
    scaled = scaled_columns(results)
    return {
        "program": f"jedi-diffusion {__version__}",
        "evaluation_set": results.wanted.settings,
        "averaging": results.averaging,
        "masking": results.masking,
        "comparisons": COMPARISONS,
        "encoders": {each.name: each.fingerprint for each in results.encoders},
        "copy_threshold": round(results.copy_threshold, 6),
        "methods": [{**_row_record(row), "scaled": _estimates(scaled[row.name])} for row in results.rows],
        "settings": dict(settings),
    }


def as_csv(results: Results) -> str:
    """Return a line for each method, group of subjects and score: method, group, score, mean, low, high."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["method", "group", "score", "mean", "low", "high"])
    scaled = scaled_columns(results)
    for row in results.rows:
        groups = {"all": row.scores, "scaled": scaled[row.name], **_named("kind", row.kinds)}
        for group, scores in groups.items():
            for name, estimate in scores.items():
                ends = [f"{each:.6f}" for each in estimate] if estimate else ["", "", ""]
                lines.writerow([row.name, group, name, *ends])
        for group, means in {**_named("class", row.classes), **_named("subject", row.subjects)}.items():
            for name, mean in means.items():
                lines.writerow([row.name, group, name, "" if mean is None else f"{mean:.6f}", "", ""])
    return text.getvalue()


def score_tables(results: Results) -> list[Table]:
    """Return a table for each comparison, columns as in the paper; copies and diversity; kinds of
    subjects.
    """
    tables = [_scaled_table(results), *(_comparison_table(results, each) for each in COMPARISONS)]
    names = [COPIES, *(name for name in results.columns if name.startswith(DIVERSITY))]
    rows = [
        [row.name, *(shown(row.scores[name], percent=name == COPIES) for name in names)]
        for row in results.rows
    ]
    tables.append(
        Table(
            "Copies and diversity",
            ["method", *names],
            rows,
            "Copies: the share of pictures nearer to an input than true photos of one subject ever are "
            f"(distance below {results.copy_threshold:.3f}). Diversity: 1 - cosine, mean over pairs of seeds "
            "of one prompt.",
        )
    )
    return [table for table in (*tables, _kinds_table(results)) if table.rows]


def _scaled_table(results: Results) -> Table:
    scaled = scaled_columns(results)
    names = list(next(iter(scaled.values()), {}))
    certain = any(each is not None for scores in scaled.values() for each in scores.values())
    return Table(
        "Between another subject (0) and another true picture (1)",
        ["method", *names],
        [[name, *map(shown, scores.values())] for name, scores in scaled.items()] if certain else [],
        "Compared with all photos but the inputs; each subject counts the same; 95% interval over subjects, "
        "the known answers drawn along.",
    )


def _comparison_table(results: Results, comparison: Comparison) -> Table:
    names = [name for name in results.columns if name.endswith(f", {comparison}")]
    texts = [each.text_column for each in results.encoders if isinstance(each, TextEncoder)]
    used = [*texts, *names]
    rows = [[row.name, *(shown(row.scores[name]) for name in used)] for row in results.rows]
    return Table(
        f"Compared with {COMPARISONS[comparison]}",
        ["method", *(name.removesuffix(f", {comparison}") for name in used)],
        rows,
        f"Mean, 95% interval over {len(results.wanted.subjects)} subjects; averaged by {results.averaging}.",
    )


def _kinds_table(results: Results) -> Table:
    """Return the first text score and all image scores against the other photos, for each kind of subject."""
    names = [name for name in results.columns if "," not in name and name != COPIES]
    names += [name for name in results.columns if name.endswith(", others")]
    rows = [
        [row.name, kind, *(shown(scores[name]) for name in names)]
        for row in results.rows
        for kind, scores in row.kinds.items()
    ]
    return Table("By kind of subject", ["method", "kind", *names], rows)


def shown(estimate: Estimate | None, percent: bool = False) -> str:
    """0.619 (0.583 to 0.655), without an interval of no width (one subject); in percent with one place."""
    if estimate is None:
        return NONE
    if estimate.low == estimate.high:
        return f"{estimate.mean:.3f}"
    if percent:
        mean, low, high = (f"{100 * each:.1f}" for each in estimate)
        return f"{mean}% ({low} to {high})"
    return str(estimate)


def _row_record(row: RowScores) -> dict[str, Any]:
    return {
        "name": row.name,
        "baseline": row.is_baseline,
        "pictures": len(row.answers),
        "cut_outs_without_a_subject": row.not_found,
        "scores": _estimates(row.scores),
        "kinds": {kind: _estimates(scores) for kind, scores in row.kinds.items()},
        "classes": _means(row.classes),
        "subjects": _means(row.subjects),
    }


def _estimates(scores: Mapping[str, Estimate | None]) -> dict[str, Any]:
    return {name: each.record() if each else None for name, each in scores.items()}


def _means(groups: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    return {
        group: {name: None if mean is None else round(mean, 6) for name, mean in scores.items()}
        for group, scores in groups.items()
    }


def _named(kind: str, groups: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{kind} {name}": scores for name, scores in groups.items()}
