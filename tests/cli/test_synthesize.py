"""`jedi synthesize` on the toybox at tiny size: sets, errors, interrupts, the shipped recipes."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("skimage")

from jedi_diffusion.cli import main
from jedi_diffusion.errors import RecipeError
from jedi_diffusion.recipes import CONFIGS
from jedi_diffusion.synthesis.adapters.filters import FILTERS
from jedi_diffusion.synthesis.estimate import estimate
from jedi_diffusion.synthesis.models_config import check_models
from jedi_diffusion.synthesis.outputs import OutputFolder
from jedi_diffusion.synthesis.recipe import load_recipe, objects_of, plan_shards

SYNTHESIZE = CONFIGS / "synthesize"
TOYBOX = SYNTHESIZE / "toybox.yaml"
TINY = (
    "objects=[robot, cup]",
    "stages.collages=2",
    "stages.collage_size=144",
    "models.generator.rays=1",
    "models.inpainter.rays=1",
    "run.objects_per_shard=1",
)


def words(out: Path, *changes: str) -> list[str]:
    sets = [word for change in (*TINY, *changes) for word in ("--set", change)]
    return ["synthesize", str(TOYBOX), "--out", str(out), "--device", "cpu", *sets]


def test_the_toybox_makes_sets_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path / "run")) == 0
    out, report = capsys.readouterr()
    assert out == f"Made: {tmp_path / 'run' / 'manifest.jsonl'}\n"
    assert "2 of 2 shards, " in report
    output = OutputFolder.open(tmp_path / "run")
    sets, collages = list(output.records("set")), list(output.records("collage"))
    assert len(collages) == 4
    assert {each["object"] for each in sets} == {"robot", "cup"}
    for collage in collages:  # the truth is beside the picture, for reports
        panels = collage["truth"]["panels"]
        assert len({panel["subject"] for panel in panels}) <= 2
        assert output.collage_picture(collage).size == (144, 144)
    for made in sets:
        truth = next(
            one["truth"]
            for one in collages
            if (one["object"], one["collage"]) == (made["object"], made["collage"])
        )
        boxes = [step["box"] for each in made["pictures"] for step in each["steps"] if "box" in step]
        shown = [max(truth["panels"], key=lambda panel, box=box: _shared(panel["box"], box)) for box in boxes]
        assert all(_shared(panel["box"], box) > 0.5 for panel, box in zip(shown, boxes, strict=True))
        assert all(panel["whole"] for panel in shown)
        assert all(" a toy" in f" {caption}" for caption in made["captions"])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "shards").iterdir()}
    assert main(words(tmp_path / "run")) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "shards").iterdir()}
    assert main(words(tmp_path / "run", "seed=1")) == 2
    assert "holds a run of another recipe" in capsys.readouterr().err


def _shared(one: list[int], other: list[int]) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_between_batches(tmp_path: Path, number: signal.Signals, capsys) -> None:
    def interrupt() -> None:
        while not (tmp_path / "run" / ".lock").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    assert main(words(tmp_path / "run", "stages.collages=1000", "run.batch=2")) == 130
    said = capsys.readouterr().err
    assert said.strip() == "jedi: Stopped with 0 of 2 shards whole; the same command goes on."
    assert not list((tmp_path / "run" / "shards").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "models.generator.kind=crayons",
            "models.generator.kind: there is no 'crayons'; the kinds are text-to-image, toybox",
        ),
        ("models.writer.kind=crayons", "models.writer.kind: there is no 'crayons'"),
        ("models.generator.rays=9", "models.generator.rays is 9, but must be less than or equal to 8"),
        ("models.detector.speed=9", "models.detector.speed is not known"),
        ("stages.affinty=0.9", "stages.affinty is not known"),
        ("objects=[cup, Cup]", "objects: names must differ"),
        ("objects=nowhere.txt", "nowhere.txt cannot be read"),
        ("run.pictures=gif", "run.pictures"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: str, message: str, capsys) -> None:
    assert main(words(tmp_path / "run", change)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_number_of_workers_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(tmp_path), "--workers", "0"]) == 2
    assert "--workers is 0" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(SYNTHESIZE.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_dry_run_prints_recipe_plan_and_cost(path: Path, tmp_path: Path, capsys) -> None:
    assert main(["synthesize", str(path), "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    resolved, end = json.JSONDecoder().raw_decode(out)
    assert resolved["stages"]["collages"] > 0
    assert "1.6 million sets" in out[end:]
    assert not (tmp_path / "run").exists()


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = load_recipe(SYNTHESIZE / "paper.yaml")
    assert recipe.stages.collage_suffix == "photos of the same"
    assert (recipe.stages.affinity, recipe.stages.style_probability) == (0.95, 0.5)
    assert (recipe.stages.min_pictures, recipe.stages.max_pictures) == (2, 4)
    names = {part: choice["model"].lower() for part, choice in recipe.models.plain().items()}
    for part, word in {
        "generator": "xl-base",
        "detector": "grounding-dino",
        "segmenter": "sam",
        "embedder": "clip",
        "inpainter": "inpainting",
        "stylizer": "pix2pix",
        "captioner": "blip2",
    }.items():
        assert word in names[part]
    items = objects_of(recipe, SYNTHESIZE / "paper.yaml")
    assert 1.5e6 < estimate(recipe, len(items)).sets < 1.7e6
    assert len(plan_shards(recipe, items)) < 100_000
    check_models(recipe.models.plain())


def test_estimates_follow_from_the_assumptions() -> None:
    recipe = load_recipe(SYNTHESIZE / "paper.yaml", ("rounds=1", "stages.collages=10"))
    found = estimate(recipe, 30)
    assert found.collages == 300
    assert found.sets == pytest.approx(180)
    assert found.pictures == pytest.approx(600)
    # a request for each object's ten prompts, and one for the scenes of each set
    assert found.calls["writer"] == pytest.approx(30 + 180)
    assert found.hours["stylizer"] == pytest.approx(600 * 0.5 * 3 / 3600)
    assert found.total_hours == pytest.approx(sum(found.hours.values()))
    assert estimate(recipe, 30, sets=180) == found


def test_the_toyboxs_recipe_names_filters_that_exist() -> None:
    assert set(load_recipe(TOYBOX).stages.styles) <= FILTERS.keys()
    with pytest.raises(RecipeError, match=r"stages: .*min_area is greater"):
        load_recipe(TOYBOX, ("stages.min_area=0.9",))
