"""Cells as pieces on real held-out subjects: drawn once, scored once, carried on where they were stopped."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.paper_tables.cells import Cells, Scored, averaged
from experiments.paper_tables.plan import Cell
from experiments.paper_tables.recipe import PaperRecipe
from jedi_diffusion.errors import RecipeError
from jedi_diffusion.evaluation.own_subjects import open_own_subjects
from jedi_diffusion.evaluation.scoring import Scorer
from jedi_toybox.evaluation_data import write_evaluation_data
from jedi_toybox.judges import ToyboxFinder, load_judges
from tests.helpers.small_paper import small_recipe

CELL = Cell("joint-6", 1, 3.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation_data(tmp_path_factory.mktemp("data"), 2, 2, 32, inputs=4)


class Counting:
    """Gives back the first reference, and stops by itself after some calls."""

    def __init__(self) -> None:
        self.drawn: list[tuple[str, int]] = []
        self.asked: list[Cell] = []
        self.limit = 10**6

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        if len(self.drawn) + len(prompts) > self.limit:
            raise KeyboardInterrupt
        self.drawn += zip(prompts, seeds, strict=True)
        return [references[0]] * len(prompts)


def cells_of(data: Path, out: Path, method: Counting, **changes: object) -> Cells:
    recipe = PaperRecipe.model_validate(small_recipe(sampling__batch=1, set__samples=2, **changes))

    def personalizer(cell: Cell) -> Counting:
        method.asked.append(cell)
        return method

    return Cells(
        recipe,
        out,
        lambda references, classes: open_own_subjects(data, references, "picks", 2, "toybox"),
        lambda wanted, folder: Scorer(wanted, load_judges(), folder, "pairs", "found", ToyboxFinder()),
        personalizer,
        lambda name: {"weights": name},
    )


def test_a_cell_stopped_anywhere_goes_on_and_nothing_is_made_twice(data: Path, tmp_path: Path) -> None:
    method = Counting()
    method.limit = 5
    with pytest.raises(KeyboardInterrupt):
        cells_of(data, tmp_path, method).run(CELL)
    assert len(method.drawn) == 5
    assert not (tmp_path / "cells" / CELL.name / "scores.json").exists()
    method.limit = 10**6
    cells = cells_of(data, tmp_path, method)
    scored = cells.run(CELL)
    assert len(method.drawn) == len(set(method.drawn)) == 8
    assert scored.scores["copies"] is not None
    assert scored.scores["copies"].mean == 1
    assert scored.scores["toy-ID, inputs"] is not None
    assert scored.scores["toy-ID, inputs"].mean == pytest.approx(1)
    assert {len(each) for each in scored.subjects.values()} == {2}
    copied = next(each for each in cells.known("known") if each.name == "copy the input")
    assert copied.scores["toy-ID, others"] is not None
    assert scored.scores["toy-ID, others"].mean == pytest.approx(copied.scores["toy-ID, others"].mean)  # type: ignore[union-attr]

    asked = len(method.asked)
    again = cells_of(data, tmp_path, method).run(CELL)
    assert len(method.asked) == asked, "no model is opened for what is there"
    assert again.scores == scored.scores
    (tmp_path / "cells" / CELL.name / "scores.json").unlink()  # killed before it was written
    assert cells_of(data, tmp_path, method).run(CELL).scores == scored.scores
    assert len(method.asked) == asked

    with pytest.raises(RecipeError, match=r"was made by another recipe \(another set"):
        cells_of(data, tmp_path, method, set__seed=5).run(CELL)


def test_names_tell_cells_apart() -> None:
    assert CELL.name == "joint-6_steps-1_guidance-3.0"
    other = Cell("joint-6", 1, 3.0, references=3, classes="held_out", scheduler="dpm++")
    assert other.name == "joint-6_steps-1_guidance-3.0_references-3_classes-held_out_scheduler-dpm++"


def test_cells_of_a_row_are_averaged_subject_by_subject() -> None:
    one, two = (
        Scored(name, {"toy-T": None}, {"toy-T": np.array(values)})
        for name, values in (("a", [0.1, 0.3]), ("b", [0.5, 0.3]))
    )
    both = averaged([one, two], "both")
    assert both.subjects["toy-T"] == pytest.approx([0.3, 0.3])
    assert both.scores["toy-T"] == pytest.approx((0.3, 0.3, 0.3))
    assert averaged([one], "alone").scores == one.scores
