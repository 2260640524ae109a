"""Cells made and scored, each once: pictures, then scores as the piece's result.

A cell's folder OUT/cells/NAME holds its pictures and scores.json, which is written last.
Letters: S subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.paper_tables.pieces import by_value, open_piece, read_json, write_json
from experiments.paper_tables.plan import Cell
from experiments.paper_tables.recipe import FitSection, PaperRecipe, SetSection
from jedi_diffusion.estimates import Estimate, weighted_mean
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.evaluation.generate import generate, pending
from jedi_diffusion.evaluation.layout import find_pictures
from jedi_diffusion.evaluation.scoring import Results, RowScores, Scorer
from jedi_diffusion.files import make_folder
from jedi_diffusion.personalizer import Personalizer

SCORES = "scores.json"
PICTURES = "pictures"
Array = NDArray[np.float64]
PersonalizerOf = Callable[[Cell], Personalizer]
OpenSet = Callable[[int, str], EvaluationSet]
OpenScorer = Callable[[EvaluationSet, Path], Scorer]


@dataclass(frozen=True)
class Scored:
    """scores: by column, None where nothing is compared; subjects: (S,) means by column, in one order for
    all cells of the same subjects, for columns that compare with something for every subject.
    """

    name: str
    scores: dict[str, Estimate | None]
    subjects: dict[str, Array]

    @classmethod
    def read(cls, name: str, record: Mapping[str, Any]) -> Scored:
        """From a cell's plain JSON values."""
        scores = {title: Estimate(**each) if each else None for title, each in record["scores"].items()}
        rows = [record["subjects"][subject] for subject in sorted(record["subjects"])]
        whole = [title for title in scores if all(row[title] is not None for row in rows)]
        return cls(name, scores, {title: np.array([row[title] for row in rows]) for title in whole})


@dataclass
class Cells:
    """Makes and scores cells below `out`.

    open_set(references, classes); open_scorer(set, folder for features); personalizer_of(cell) is only asked
    where pictures are missing. depends_on(method): plain JSON values that the method's pictures depend on.
    """

    recipe: PaperRecipe
    out: Path
    open_set: OpenSet
    open_scorer: OpenScorer
    personalizer_of: PersonalizerOf
    depends_on: Callable[[str], Any]
    _sets: dict[tuple[int, str], tuple[EvaluationSet, Scorer]] = field(default_factory=dict)

    def run(self, cell: Cell) -> Scored:
        """Return the cell's scores; what is there already is neither drawn nor scored again.

        Raises RecipeError for a cell of another recipe, and what drawing and scoring raise.
        """
        home = open_piece(self.folder(cell), self._record(cell), by_value(set=SetSection, fit=FitSection))
        path = home / SCORES
        if not path.exists():
            wanted, scorer = self._opened(cell)
            pictures = make_folder(home / PICTURES)
            if pending(wanted, pictures):
                generate(wanted, self.personalizer_of(cell), pictures, self.recipe.sampling.batch)
            results = scorer.score({cell.name: find_pictures(pictures, wanted)})
            self._write_known(cell, results)
            write_json(path, _record(results.rows[-1]))
        return Scored.read(cell.name, read_json(path))

    def folder(self, cell: Cell) -> Path:
        return self.out / "cells" / cell.name

    def wanted(self, cell: Cell) -> EvaluationSet:
        """Return the evaluation set that the cell is drawn for."""
        return self._opened(cell)[0]

    def known(self, classes: str) -> list[Scored]:
        """Return the known answers, true pictures and copied input, beside one reference; none before a
        cell.
        """
        found = []
        for path in sorted((self.out / "known").glob(f"{classes}-*.json")):
            record = read_json(path)
            found.append(Scored.read(record["name"], record))
        return found

    def _write_known(self, cell: Cell, results: Results) -> None:
        """Scores of the known answers with one reference, once for each set of subjects."""
        if cell.references != 1:
            return
        make_folder(self.out / "known")
        for number, row in enumerate(row for row in results.rows if row.is_baseline):
            write_json(
                self.out / "known" / f"{cell.classes}-{number}.json", {"name": row.name, **_record(row)}
            )

    def _opened(self, cell: Cell) -> tuple[EvaluationSet, Scorer]:
        key = (cell.references, cell.classes)
        if key not in self._sets:
            wanted = self.open_set(*key)
            features = self.out / "features" / f"{cell.classes}-{cell.references}"
            self._sets[key] = wanted, self.open_scorer(wanted, features)
        return self._sets[key]

    def _record(self, cell: Cell) -> dict[str, Any]:
        return {
            "cell": asdict(cell),
            "set": self.recipe.set.model_dump(mode="json"),
            "size": self.recipe.size,
            "method": self.depends_on(cell.method),
        }


def _record(row: RowScores) -> dict[str, Any]:
    return {
        "pictures": len(row.answers),
        "not_found": row.not_found,
        "scores": {name: each.record() if each else None for name, each in row.scores.items()},
        "subjects": row.subjects,
    }


def averaged(cells: list[Scored], name: str) -> Scored:
    """Return the mean of several cells of the same subjects, subject by subject (Table 6).

    Intervals are anew.
    """
    if len(cells) == 1:
        return Scored(name, cells[0].scores, cells[0].subjects)
    titles = [title for title in cells[0].subjects if all(title in each.subjects for each in cells)]
    means = {title: np.mean([each.subjects[title] for each in cells], axis=0) for title in titles}
    scores: dict[str, Estimate | None] = {
        title: weighted_mean(values, np.ones(len(values))) for title, values in means.items()
    }
    return Scored(name, scores, means)
