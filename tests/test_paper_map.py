"""docs/paper_map.md: complete, and every name, command, option and file that it gives exists."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from experiments.paper_tables.recipe import RECIPES, PaperRecipe
from jedi_diffusion.recipes import CONFIGS
from jedi_diffusion.train.config import ModelSection, Recipe, for_device
from jedi_diffusion.train.joint_recipe import Conditions, JointRecipe
from jedi_diffusion.train.plan import plan_set
from tests.helpers.doc_checks import check_call, resolve

ROOT = Path(__file__).resolve().parents[1]
MAP = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in MAP.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| Paper"))
]
ITEMS = [
    f"{kind} {number}"
    for kind, last in (("Eq.", 4), ("Algorithm", 1), ("Table", 10), ("Figure", 16))
    for number in range(1, last + 1)
]
# Formulas, arguments and fields stand in backticks too; a name has a dot, a command or a file its beginning.
NAMES = sorted({name for row in ROWS for name in re.findall(r"`([a-z_]+\.[\w.]+)`", row[2])})
CALLS = sorted({call for row in ROWS for call in re.findall(r"`(jedi [^`]+)`", row[2])})
FILES = sorted(set(re.findall(r"`((?:benchmarks|tests|docs)/[\w./]+)`", MAP)))
SETTLED = sorted(set(re.findall(r"`((?:joint|backbones|train)\.[\w.]+)`", MAP)) - set(NAMES))


@pytest.mark.parametrize("item", ITEMS)
def test_every_equation_table_and_figure_has_one_row_that_answers(item: str) -> None:
    (row,) = (row for row in ROWS if row[0] == item)
    assert row[1]
    assert "`" in row[2] or row[2].startswith("not yet")


@pytest.mark.parametrize("name", NAMES + SETTLED)
def test_names_exist(name: str) -> None:
    assert resolve(name) is not None


@pytest.mark.parametrize("call", CALLS)
def test_commands_and_their_options_exist(call: str) -> None:
    check_call(call.split()[1:])


@pytest.mark.parametrize("file", FILES)
def test_files_exist(file: str) -> None:
    assert (ROOT / file).is_file()


def raw(path: Path) -> dict:
    return for_device(yaml.safe_load(path.read_text(encoding="utf-8")), "cpu")


def settings_of(stage: object, model: ModelSection) -> dict[str, object]:
    """What the table of differences lists, of a training from nothing."""
    return {**model.scheduler, **model.model_dump(), **vars(stage)}


def test_what_differs_from_the_paper_is_what_the_recipes_say() -> None:
    """Column for column; a recipe with a base has the base's schedule, `paper_sd14` SD 1.4's."""
    toybox, tables = (
        Recipe.model_validate(raw(CONFIGS / "train" / "toybox.yaml")),
        PaperRecipe.model_validate(raw(RECIPES["full"])),
    )
    base = {
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "distance_slope": 0,
        "temperature": 1,
    }
    paper = {**base, "min_snr": None, "subject_weight": 0, "reference_weight": 1, "reference": 0.5}
    sd14 = JointRecipe.model_validate(raw(CONFIGS / "train" / "paper_sd14.yaml"))
    told = [
        paper,
        settings_of(toybox.stages[-1], toybox.model),
        settings_of(tables.training, tables.backbone.model),
        {**base, "subject_weight": 0, **vars(sd14.training), **vars(sd14.conditions)},
    ]
    words = {"none": None, "yes": True, "no": False}
    rows = [row for row in ROWS if len(row) == 5 and row[0].startswith("`")]
    assert len(rows) == len(paper)
    for name, *cells in rows:
        expected = [each[name.strip("`")] for each in told]
        assert [words.get(cell, cell) for cell in cells] == [
            value if value is None or isinstance(value, bool | str) else f"{value:g}" for value in expected
        ]


def test_the_share_of_references_is_the_documented_one() -> None:
    """(N / 2 - 1 / 2^N) / N after one target is kept, and so it is drawn."""
    told = re.search(
        r"is not 0\.5 but ([\d.]+), ([\d.]+) and ([\d.]+) in sets of 2, 3 and 4", MAP.replace("\n   ", " ")
    )
    assert told
    for size, share in zip((2, 3, 4), map(float, told.groups()), strict=True):
        assert share == pytest.approx((size / 2 - 0.5**size) / size, abs=0.006)
        drawn = [plan_set(Conditions(), 0, place, 0, size).is_reference for place in range(2000)]
        assert torch.tensor(drawn).float().mean().item() == pytest.approx(share, abs=0.02)


def test_what_the_paper_leaves_open_is_marked() -> None:
    """Every key of the paper's training stands in its recipe, beside a mark where the paper is silent."""
    text = (CONFIGS / "train" / "paper_sd14.yaml").read_text(encoding="utf-8")
    given = yaml.safe_load(text)
    assert {"warmup", "weight_decay", "clip", "ema", "precision"} <= given["training"].keys()
    assert text.index("the paper says nothing") < text.index("weight_decay") < text.index("channels_last")
    for name in ("resolution: 256", "no_text: 0.1"):
        assert re.search(rf"{name} +# the paper does not say", text)
