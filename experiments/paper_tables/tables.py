"""The finished tables: rows here beside the paper's, and whether the paper's ordering holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.paper_tables import numbers
from experiments.paper_tables.cells import Scored, averaged
from experiments.paper_tables.numbers import TABLES
from experiments.paper_tables.ordering import Agreement, compare, differences, verdict
from experiments.paper_tables.plan import Plan
from jedi_diffusion.estimates import Estimate
from jedi_diffusion.evaluation.metrics import COMPARISONS, Comparison
from jedi_diffusion.evaluation.outputs import NONE, shown
from jedi_diffusion.page.tables import Table

HERE = {numbers.CLIP_T: "toy-T", numbers.DINO: "toy-ID", numbers.MDINO: "Mtoy-ID"}
"""What stands here for each of the paper's scores; CLIP-I and MCLIP-I have no counterpart."""
ORDER = (numbers.CLIP_T, numbers.DINO, numbers.MDINO, numbers.CLIP_I, numbers.MCLIP_I)
COMPARED: dict[str, Comparison] = {"2": "all", "5": "all", "9": "all"}
"""Main tables compare with all photos, ablations with the input alone (section 6)."""
OWN: Comparison = "others"
"""What tables that the paper does not have compare with: photos that are no input."""
STAND_INS = {numbers.BLIP_DIFFUSION: numbers.CLIP_BASELINE, numbers.ELITE: numbers.LEARNED}
STANDING_IN = (
    "BLIP Diffusion and ELITE need weights of their own and photos: the CLIP baseline stands for the first "
    "(a fixed encoder's features as tokens), the learned baseline for the second (an encoder trained along; "
    "section 2.2)."
)
OWN_TITLES = {
    "references": "Scores against the number of references",
    "coupling": "Coupling: joint and cached, each trained as long",
    "null_set": "The unconditional set: joint and single",
    "steps": "Steps and schedulers",
}


def compared(key: str) -> Comparison:
    """Return what the identity scores of a table compare with."""
    return COMPARED.get(key, "inputs") if key in TABLES else OWN


def column_of(key: str, score: str) -> str:
    """Return the column of a cell's scores that stands for one of the paper's in a table."""
    name = HERE[score]
    return name if score == numbers.CLIP_T else f"{name}, {compared(key)}"


@dataclass(frozen=True)
class TableResult:
    """One table. labels: the rows' names as they are shown; note: what differs from the paper."""

    key: str
    rows: Mapping[str, Scored]
    labels: Mapping[str, str]
    note: str = ""

    @property
    def title(self) -> str:
        return TABLES[self.key].title if self.key in TABLES else OWN_TITLES[self.key]

    @property
    def comparison(self) -> Comparison:
        return compared(self.key)

    def column(self, score: str) -> str:
        return column_of(self.key, score)

    @property
    def agreements(self) -> list[Agreement]:
        """One for each score that both have; empty for tables that are not the paper's."""
        if self.key not in TABLES:
            return []
        paper = TABLES[self.key]
        found = []
        for score in (each for each in ORDER if each in paper.scores and each in HERE):
            each = compare(f"{HERE[score]} for {score}", paper.column(score), self._subjects(score))
            found += [each] if each else []
        return found

    def _subjects(self, score: str) -> dict[str, Any]:
        """Row by row the means of the subjects, in one order for all rows."""
        column = self.column(score)
        return {name: row.subjects[column] for name, row in self.rows.items() if column in row.subjects}

    @property
    def verdict(self) -> str:
        """One line; empty for tables that are not the paper's."""
        return verdict(self.agreements) if self.key in TABLES else ""

    def table(self) -> Table:
        """As it stands on the page."""
        return self._beside() if self.key in TABLES else self._alone()

    def _beside(self) -> Table:
        paper = TABLES[self.key]
        scores = [each for each in ORDER if each in paper.scores]
        head = [""]
        for score in scores:
            head += [f"{score}, paper", *([f"{HERE[score]}, here"] if score in HERE else [])]
        lines = []
        for name, label in self.labels.items():
            line = [label]
            for score in scores:
                line.append(f"{paper.column(score)[name]:.4f}")
                if score in HERE:
                    line.append(_cell(self.rows.get(name), self.column(score)))
            lines.append([*line, _copies(self.rows.get(name))])
        note = (
            f"Paper: {paper.source}. Here compared with {COMPARISONS[self.comparison]}. {self.note}".strip()
        )
        return Table(self.title, [*head, "copies, here"], lines, f"{self.verdict}\n{note}")

    def _alone(self) -> Table:
        names = [self.column(score) for score in HERE]
        lines = [
            [label, *(_cell(self.rows[name], each) for each in names), _copies(self.rows[name])]
            for name, label in self.labels.items()
        ]
        note = f"Compared with {COMPARISONS[self.comparison]}. {self.note}".strip()
        return Table(self.title, ["", *HERE.values(), "copies"], lines, note)

    def record(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        paper = TABLES.get(self.key)
        return {
            "title": self.title,
            "compared_with": COMPARISONS[self.comparison],
            "note": self.note,
            "paper": None
            if paper is None
            else {
                "source": paper.source,
                "rows": {name: dict(zip(paper.scores, row, strict=True)) for name, row in paper.rows.items()},
            },
            "here": {
                name: {
                    "label": self.labels[name],
                    "scores": _scores(row),
                    "subjects": {column: values.round(6).tolist() for column, values in row.subjects.items()},
                }
                for name, row in self.rows.items()
            },
            "differences": {self.column(score): differences(self._subjects(score)) for score in HERE},
            "agreement": [each.record() for each in self.agreements],
            "verdict": self.verdict,
        }


def labelled(key: str, names: Sequence[str], amounts: Sequence[int]) -> dict[str, str]:
    """Return how the rows of a table are called; amounts: of Table 3."""
    if key == "3":
        return {
            name: f"{name} (here {amount:,} subjects)" for name, amount in zip(names, amounts, strict=True)
        }
    if key in ("2", "5", "10"):
        return {name: f"{name} (here: {STAND_INS[name]})" if name in STAND_INS else name for name in names}
    return {name: name for name in names}


def timing_agreement(seconds: Mapping[str, Sequence[float]]) -> list[Agreement]:
    """Table 10's ordering, with repetitions in the place of subjects."""
    here = {name: np.array(times) for name, times in seconds.items()}
    found = compare("seconds", TABLES["10"].column(numbers.SECONDS), here)
    return [found] if found else []


def timing_table(title: str, seconds: Mapping[str, Sequence[float]]) -> Table:
    """Table 10 as measured."""
    paper = TABLES["10"].column(numbers.SECONDS)
    lines = []
    for name, times in seconds.items():
        label = labelled("10", [name], ())[name]
        spread = f"{np.median(times):.4f} ({min(times):.4f} to {max(times):.4f})"
        lines.append([label, f"{paper[name]:.4f}" if name in paper else NONE, spread])
    note = (
        f"{verdict(timing_agreement(seconds))}\n"
        f"Paper: {TABLES['10'].source}. Here median (least to most) of one guided step for one picture, both "
        "branches in one forward; what reads references once, before the first step, is not counted. "
        f"{STANDING_IN}"
    )
    return Table(title, ["", "seconds, paper", "seconds, here"], lines, note)


def _cell(row: Scored | None, column: str) -> str:
    return NONE if row is None else shown(row.scores.get(column))


def _copies(row: Scored | None) -> str:
    return NONE if row is None else shown(row.scores.get("copies"), percent=True)


def _scores(row: Scored) -> dict[str, Any]:
    def record(each: Estimate | None) -> dict[str, float] | None:
        return each.record() if each else None

    return {name: record(each) for name, each in row.scores.items()}


def gather(plan: Plan, done: Mapping[str, Scored]) -> list[TableResult]:
    """Return the recipe's tables with the rows whose cells are all done; done: by the cell's name."""
    found = []
    amounts = plan.recipe.data.amounts
    for key, rows in plan.tables.items():
        if not rows:
            continue
        there = {
            name: averaged([done[cell.name] for cell in cells], name)
            for name, cells in rows.items()
            if all(cell.name in done for cell in cells)
        }
        names = list(TABLES[key].rows) if key in TABLES else list(there)
        found.append(TableResult(key, there, labelled(key, names, amounts), note_of(key, plan)))
    return found


def note_of(key: str, plan: Plan) -> str:
    """Return what differs from the paper, or has to be known."""
    recipe = plan.recipe
    notes = {
        "2": STANDING_IN,
        "3": "The videos and Objaverse's renders of the paper are views of a subject in one plain scene with "
        "one caption; there is no LAION.",
        "4": "The CLIP baseline reads a small encoder that was trained against captions, as CLIP is.",
        "5": f"Here {recipe.set.subjects} subjects of classes that no training has seen. {STANDING_IN}",
        "6": f"Each row is the mean over scales {recipe.sweeps.scales[0]:g} to {recipe.sweeps.scales[-1]:g}. "
        "With one scale for both stages eq. 4 is eq. 3, so both two-stage rows take every two different "
        f"scales of {', '.join(f'{each:g}' for each in recipe.sweeps.both)}, one for the text and one for "
        "the references: the same points for both. The paper does not say what it varied.",
        "9": f"Finetuning methods have all {recipe.set.inputs} references.",
        "references": f"Trained on sets of at most {max(recipe.training.set_sizes)} pictures.",
        "coupling": "The cached model is trained with coupling cached alone, on the same draws.",
        "steps": "model: the model's own scheduler, DDIM.",
    }
    return notes.get(key, "")
