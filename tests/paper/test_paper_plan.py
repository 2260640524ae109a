"""Recipes of the paper's tables, what they plan, and the paper's numbers, which repeat each other."""

import pytest
import yaml
from pydantic import ValidationError

from experiments.paper_tables.estimate import estimate
from experiments.paper_tables.numbers import DINO, TABLES
from experiments.paper_tables.plan import FITTED, Plan, Training
from experiments.paper_tables.recipe import RECIPES, PaperRecipe
from jedi_diffusion.train.config import for_device
from tests.helpers.small_paper import small_recipe

ALL = ["2", "3", "4", "5", "6", "7", "8", "9", "10", "references", "coupling", "null_set", "steps"]


def plan(**changes: object) -> Plan:
    return Plan(PaperRecipe.model_validate(small_recipe(**changes)))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_recipes_that_ship_hold_every_table(name: str, device: str) -> None:
    raw = yaml.safe_load(RECIPES[name].read_text())
    recipe = PaperRecipe.model_validate(for_device(raw, device))
    assert sorted(recipe.tables) == sorted(ALL)
    # Table 3's amounts are to each other as the paper's.
    shares = [amount / recipe.data.amounts[-1] for amount in recipe.data.amounts]
    assert shares == pytest.approx([0, 0.6 / 1.6, 1.2 / 1.6, 1], abs=0.02)


def test_one_night_on_two_cores() -> None:
    raw = yaml.safe_load(RECIPES["full"].read_text())
    assert estimate(Plan(PaperRecipe.model_validate(for_device(raw, "cpu")))).hours < 9


def test_rows_are_the_papers_and_cells_are_shared() -> None:
    found = plan(tables=ALL, sweeps__references=(1, 3))
    for key, rows in found.tables.items():
        if rows and key in TABLES:
            assert list(rows) == list(TABLES[key].rows)
    names = [cell.name for cell in found.cells]
    assert len(set(names)) == len(names)
    tables = found.tables
    assert tables["4"]["JeDi"] == tables["7"]["JeDi"] == tables["2"]["JeDi (1 input)"] == tables["3"]["1.6M"]
    assert tables["references"]["3"] == tables["2"]["JeDi (3 inputs)"]
    assert {cell.classes for (cell,) in tables["5"].values()} == {"held_out"}
    methods = [cell.method for cell in found.cells]
    assert methods == sorted(methods, key=list(dict.fromkeys(methods)).index), "one method after the other"
    assert {*methods} - {*FITTED} == {training.name for training in found.trainings}


def test_only_what_the_tables_need_is_trained() -> None:
    assert plan(tables=["null_set"]).trainings == [Training("joint", 6)]
    assert {each.amount for each in plan(tables=["3"]).trainings} == {0, 2, 4, 6}
    assert plan(tables=["10"]).cells == []


def test_both_scales_are_swept_and_at_the_same_points_in_both_strategies() -> None:
    cells = plan(tables=["6"], sweeps__both=[1.5, 4.0, 6.0]).strategies()
    points = {name: {(c.guidance, c.image_guidance) for c in cells[name]} for name in cells}
    expected = {(text, image) for text in (1.5, 4.0, 6.0) for image in (1.5, 4.0, 6.0) if text != image}
    assert points["Text first"] == points["Image first"] == expected
    assert [c.guidance for c in cells["Joint"]] == [c.guidance for c in cells["Text only"]] == [1.5, 4.0]


def test_estimate_by_hand() -> None:
    found = estimate(plan(tables=["null_set"]))
    # Two stages and one method, 2 steps of 4; 2 subjects, 4 and 3 pictures through the network.
    assert found.trained == 3 * 2 * 4
    assert found.sampled == 2 * (4 + 3)
    assert found.hours == pytest.approx((24 / 100 + 14 / 200) / 3600)
    assert estimate(plan(tables=["7"])).trained == (3 + 4) * 2 * 4, "the encoder, for the one that reads it"
    assert estimate(plan(tables=["10"])).hours == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables": ["11"]}, "tables"),
        ({"tables": ["2", "2"]}, "one is named twice"),
        ({"data__amounts": [1, 2, 4, 6]}, "the first must be 0"),
        ({"data__amounts": [0, 4, 2, 6]}, "each larger than the one before"),
        ({"training__subjects": 7}, "training.subjects is 7, but data.amounts ends in 6"),
        ({"sweeps__references": [1, 9]}, "sweeps.references goes up to 9, but set.inputs is 3"),
        ({"sampling__guidance": 1.0}, "0 and 1 are no guidance"),
        ({"set__colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_faults_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PaperRecipe.model_validate(small_recipe(**changes))


def test_a_backbone_that_sees_sets_is_refused() -> None:
    raw = small_recipe()
    raw["backbone"]["stages"][1]["set_sizes"] = {2: 1.0}
    with pytest.raises(ValidationError, match="trains sets of one"):
        PaperRecipe.model_validate(raw)
    raw["backbone"]["stages"].pop()
    with pytest.raises(ValidationError, match="a stage of single pictures"):
        PaperRecipe.model_validate(raw)


def test_numbers_that_the_paper_prints_twice_are_the_same() -> None:
    rows = {key: table.rows for key, table in TABLES.items()}
    assert rows["4"]["CLIP baseline"] == rows["7"]["CLIP baseline"]
    assert rows["4"]["JeDi"] == rows["7"]["JeDi"] == rows["3"]["0.6M"]
    assert rows["4"]["w/o IG"] == rows["6"]["Text only"]
    for name in ("JeDi (1 input)", "JeDi (3 inputs)"):
        assert rows["2"][name] == rows["9"][name]
    assert TABLES["8"].column(DINO) == {"S³ dataset": 0.751, "Real images": 0.774}
