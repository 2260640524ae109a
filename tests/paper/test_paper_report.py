"""The tables and the page from scores that are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.paper_tables.cells import Scored
from experiments.paper_tables.findings import findings
from experiments.paper_tables.numbers import TABLES
from experiments.paper_tables.plan import Plan
from experiments.paper_tables.recipe import PaperRecipe
from experiments.paper_tables.report import Report, as_json, write_report
from experiments.paper_tables.tables import gather
from experiments.paper_tables.timing import large_unet, step_seconds
from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.estimates import weighted_mean
from tests.helpers.small_models import TEXT_TOKENS, random_batch, tiny_unet
from tests.helpers.small_paper import small_recipe

PAPER_TABLES = ["2", "3", "4", "5", "6", "7", "9", "references", "coupling", "null_set", "steps"]
RECIPE = PaperRecipe.model_validate(small_recipe(tables=PAPER_TABLES))
PLAN = Plan(RECIPE)


def scored(name: str, level: float) -> Scored:
    """All scores about `level`, subjects differing a little, alike in all cells."""
    noise = np.random.default_rng(0).normal(0, 0.002, 12)
    columns = ["toy-T", "copies"]
    columns += [f"{one}, {other}" for one in ("toy-ID", "Mtoy-ID") for other in ("all", "others", "inputs")]
    subjects = dict.fromkeys(columns, level + noise)
    return Scored(name, {key: weighted_mean(each, np.ones(12)) for key, each in subjects.items()}, subjects)


@pytest.fixture
def done() -> dict[str, Scored]:
    """As Table 4's DINO has it, so that CLIP-T is the wrong way round."""
    made = {cell.name: scored(cell.name, 0.5) for cell in PLAN.cells}
    for name, (dino, _, _) in TABLES["4"].rows.items():
        (cell,) = PLAN.tables["4"][name]
        made[cell.name] = scored(cell.name, dino)
    return made


def test_a_table_stands_beside_the_papers_with_its_line(done: dict[str, Scored]) -> None:
    table = next(each for each in gather(PLAN, done) if each.key == "4")
    by_score = {each.score.split()[0]: each for each in table.agreements}
    assert by_score["toy-ID"].correlation == (1, 1, 1)
    assert (by_score["toy-ID"].kept, by_score["Mtoy-ID"].kept) == (6, 6)
    # The paper's CLIP-T: 3325 > 3259 > 3041 > 3020, here .3411 < .4652 < .7432 < .7501.
    assert by_score["toy-T"].correlation == (-1, -1, -1)
    assert by_score["toy-T"].turned == 6
    assert table.verdict.startswith("The paper's ordering does not hold here.")
    shown = table.table()
    assert shown.head[:3] == ["", "CLIP-T, paper", "toy-T, here"]
    row = next(row for row in shown.rows if row[0] == "w/o IG")
    assert row[1] == "0.3259"
    assert row[3] == "0.4652"
    assert row[4].startswith("0.46")


def test_every_table_is_compared_with_what_the_paper_compares_with() -> None:
    """Main tables with all photos, ablations with the inputs, tables of our own with the other photos."""
    levels = {"all": 0.1, "inputs": 0.2, "others": 0.3}
    columns = scored("any", 0.5).subjects
    subjects = {each: np.full(12, levels.get(each.partition(", ")[2], 0.5)) for each in columns}
    scores = {each: weighted_mean(values, np.ones(12)) for each, values in subjects.items()}
    done = {cell.name: Scored(cell.name, scores, subjects) for cell in PLAN.cells}
    wanted = {**dict.fromkeys(("2", "5", "9"), "all"), **dict.fromkeys(("3", "4", "6", "7"), "inputs")}
    for table in gather(PLAN, done):
        comparison = wanted.get(table.key, "others")
        assert table.comparison == comparison
        shown = table.table()
        line = next(row for row in shown.rows if row[-1] != "–")
        places = [n for n, name in enumerate(shown.head) if name.startswith(("toy-ID", "Mtoy-ID"))]
        assert places
        assert all(line[n].startswith(f"{levels[comparison]:.2f}") for n in places), table.key


def test_rows_that_are_not_done_are_left_open(done: dict[str, Scored]) -> None:
    (cell,) = PLAN.tables["4"]["(+) CLIP emb"]
    del done[cell.name]
    table = next(each for each in gather(PLAN, done) if each.key == "4")
    assert {each.pairs for each in table.agreements} == {3}
    row = next(row for row in table.table().rows if row[0] == "(+) CLIP emb")
    assert row[1:] == ["0.3041", "–", "0.7432", "–", "0.8617", "–", "–"]
    assert all(part.table().rows for part in gather(PLAN, {}) if part.key in TABLES)


def test_the_page_and_its_json(done: dict[str, Scored], tmp_path: Path) -> None:
    sweeps = {name: [(cell, done[cell.name]) for cell in cells] for name, cells in PLAN.strategies().items()}
    report = Report(
        RECIPE,
        "cpu",
        gather(PLAN, done),
        trainings={"backbone": {"parameters": 7_000_000, "seconds": 90.0}},
        sweeps=sweeps,
        seconds={"cpu": {"BLIP Diffusion": [1.0, 1.1], "ELITE": [3.0, 3.1], "JeDi": [2.0, 2.1]}},
        data={
            "sets": 40,
            "subjects": 30,
            "categories": 3,
            "similarity": {"toy-ID": {"inside": {"mean": 0.8, "low": 0.7, "high": 0.9}, "between": None}},
        },
        left=2,
    )
    page, record, text = write_report(report, tmp_path)
    html = page.read_text()
    for table in TABLES.values():
        assert table.title in html
    assert "Figure 11" in html
    assert "Not finished: 2 pieces" in html
    assert "BLIP Diffusion (here: CLIP baseline)" in html
    assert "http" not in html.replace("http-equiv", "")
    told = json.loads(record.read_text())
    assert told["tables"]["4"]["paper"]["rows"]["JeDi"]["MDINO"] == 0.8639
    assert told["tables"]["4"]["here"]["JeDi"]["scores"]["toy-ID, inputs"]["mean"] == pytest.approx(
        0.75, abs=0.01
    )
    assert told["table_10"]["cpu"]["verdict"].startswith(
        "The paper's ordering holds here. seconds: 3 of 3 pairs"
    )
    assert [each["text_scale"] for each in told["figure_11"]["Joint"]] == [1.5, 4.0]
    assert [each["image_scale"] for each in told["figure_11"]["Text first"]] == [4.0, 1.5]
    assert {each["image_scale"] for each in told["figure_11"]["Text only"]} == {None}
    assert findings(told) == findings(as_json(report))
    assert html.count("Table 6 at equal scales, 2 pairs") == 1
    assert "| w/o IG | 0.3259 |" in text.read_text()


def test_steps_are_timed_and_the_network_is_left_as_it_was() -> None:
    unet = make_joint(tiny_unet())
    before = dict(unet.state_dict())
    found = step_seconds(unet, TEXT_TOKENS, 2)
    names = {"no reference", "JeDi", "JeDi (3 inputs)", "JeDi (1 input), cached", "BLIP Diffusion", "ELITE"}
    assert found.keys() == names
    assert all(len(times) == 2 and min(times) > 0 for times in found.values())
    assert unet.state_dict().keys() == before.keys()
    batch = random_batch(unet, (2,), references=(0,))
    assert UNetBackbone(unet)(batch.latents, 5, batch).shape == batch.latents.shape


def test_the_large_network_has_the_size_of_stable_diffusion() -> None:
    """859,520,964 weights, and 5 more input channels of 320 3x3 filters."""
    unet = large_unet("meta")
    assert sum(each.numel() for each in unet.parameters()) == 859_520_964 + 5 * 320 * 9
