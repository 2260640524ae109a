"""`jedi evaluate` on a tiny model: generate, score, resume; and recipes with faults."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import TypeAdapter

from jedi_diffusion import models
from jedi_diffusion.methods import custom_diffusion, diffusekrona, dreambooth, svdiff, textual_inversion
from jedi_diffusion.methods.recipe import EvaluationRecipe, Method
from jedi_diffusion.recipes import CONFIGS
from tests.helpers.small_benchmarks import make_clone
from tests.helpers.small_blip_diffusion import save_blip_diffusion

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(joint_model: Path, tmp_path: Path) -> Path:
    sampling = {"model": str(joint_model), "steps": 1}
    content = {
        "name": "small",
        "set": {"kind": "toybox", "subjects": 2, "prompts": 1, "samples": 2, "size": 32, "references": 2},
        "encoders": {"kind": "toybox"},
        "methods": [
            {"kind": "model", "name": "joint", "coupling": "cached", **sampling},
            {"kind": "text_only", "name": "text only", **sampling},
            {"kind": "copy", "name": "copied"},
            {"kind": "oracle", "name": "true"},
        ],
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_recipe_is_generated_scored_and_resumed(jedi, recipe, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    words = ["evaluate", recipe, "--out", out, "--device", "cpu"]
    done = jedi(*words)
    assert done.status == 0, done.err
    record = json.loads((out / "scores.json").read_text())
    scores = {each["name"]: each["scores"] for each in record["methods"]}
    assert list(scores)[3:] == ["joint", "text only", "copied", "true"]
    assert scores["copied"]["copies"]["mean"] == 1
    assert scores["copied"]["toy-ID, inputs"]["mean"] > scores["joint"]["toy-ID, inputs"]["mean"]
    for name in ("toy-T", "toy-ID, all", "toy-ID, others", "toy-ID, inputs"):
        assert scores["true"][name]["mean"] == pytest.approx(scores["oracle (true pictures)"][name]["mean"])
    pictures = {path: path.read_bytes() for path in (out / "pictures").rglob("*.png")}
    assert len(pictures) == 4 * 4
    assert (out / "report.html").stat().st_size > 10_000

    monkeypatch.setattr(models, "load_model", pytest.fail)  # everything is there
    again = jedi(*words)
    assert again.status == 0, again.err
    assert json.loads((out / "scores.json").read_text()) == record
    monkeypatch.undo()
    lost = next(path for path in pictures if "joint" in path.parts)
    lost.unlink()
    assert jedi(*words).status == 0
    alone, among = (np.asarray(Image.open(each)).astype(int) for each in (lost, io.BytesIO(pictures[lost])))
    assert np.abs(alone - among).max() <= 1  # fewer in a call may round otherwise
    other = jedi(*words, "--set", "methods.0.steps=2")
    assert other.status == 2
    assert "joint holds pictures that were made otherwise (another method." in other.err


def test_finetuning_methods_report_their_fits_and_reuse_them(jedi, recipe, tmp_path, joint_model) -> None:
    content = yaml.safe_load(recipe.read_text())
    content["set"] |= {"subjects": 1, "samples": 1}
    sampling = {"model": str(joint_model), "steps": 1}
    fit = {"fit_steps": 1, "prior_pictures": 1, "learning_rate": 0.01}
    content["methods"] = [
        {"kind": "textual_inversion", "name": "word", **sampling, **fit},
        {"kind": "dreambooth", "name": "lora", "rank": 2, **sampling, **fit},
        {"kind": "training_free", "name": "untrained", **sampling},
    ]
    recipe.write_text(yaml.safe_dump(content))
    words = ["evaluate", recipe, "--out", tmp_path / "out", "--device", "cpu"]
    done = jedi(*words)
    assert done.status == 0, done.err
    stored = {
        name: list((tmp_path / "out" / "fits" / name).glob("*.safetensors")) for name in ("word", "lora")
    }
    assert all(len(files) == 1 for files in stored.values())
    for name in stored:
        assert f"{name}: fitted 1 times, " in done.out
    pictures = {path: path.read_bytes() for path in (tmp_path / "out" / "pictures").rglob("*.png")}
    assert len(set(pictures.values())) == 3
    before = {name: files[0].stat().st_mtime_ns for name, files in stored.items()}
    for path in pictures:
        path.unlink()
    assert jedi(*words).status == 0
    assert all(path.read_bytes() == data for path, data in pictures.items())
    assert "lora: fitted 1 times, " in jedi(*words).out, "also where nothing is left to do"
    assert before == {name: files[0].stat().st_mtime_ns for name, files in stored.items()}


def test_methods_of_diffusers_run_with_the_users_weights(jedi, recipe, tmp_path) -> None:
    home = save_blip_diffusion(tmp_path / "blip")
    content = yaml.safe_load(recipe.read_text())
    content["set"] |= {"subjects": 1, "samples": 1}
    content["methods"] = [
        {"kind": "blip_diffusion", "name": "BLIP-Diffusion", "model": str(home / "model"), "steps": 1}
        | {"vocabulary": str(home / "words"), "size": 32}
    ]
    recipe.write_text(yaml.safe_dump(content))
    done = jedi("evaluate", recipe, "--out", tmp_path / "out", "--device", "cpu")
    assert done.status == 0, done.err
    assert len(list((tmp_path / "out" / "pictures" / "BLIP-Diffusion").rglob("*.png"))) == 1


@pytest.mark.parametrize(
    ("method", "tuning", "own"),
    [
        ({"kind": "dreambooth"}, dreambooth.DreamBooth(), dreambooth.FULL),
        ({"kind": "dreambooth", "rank": 8}, dreambooth.DreamBooth(rank=8), dreambooth.LORA),
        ({"kind": "textual_inversion"}, textual_inversion.TextualInversion(), textual_inversion.SETTINGS),
        ({"kind": "custom_diffusion"}, custom_diffusion.CustomDiffusion(), custom_diffusion.SETTINGS),
        ({"kind": "svdiff"}, svdiff.SVDiff(), svdiff.SETTINGS),
        ({"kind": "diffusekrona"}, diffusekrona.DiffuseKronA(), diffusekrona.SETTINGS),
        ({"kind": "diffusekrona", "factor": 8}, diffusekrona.DiffuseKronA(factor=8), diffusekrona.SETTINGS),
    ],
)
def test_finetuning_methods_by_kind(method, tuning, own) -> None:
    section = TypeAdapter(Method).validate_python({"name": "x", **method})
    assert section.tuning() == (tuning, own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("set.colour=red", "set.toybox.colour is not known"),
        ("set.references=4", "the toybox renders 3"),
        ("methods.1.name=joint", "two methods have the same name"),
        ("methods.0.name=../joint", "methods.0.model.name"),
        ("methods.0.model=nowhere/at/all", "There is no model 'nowhere/at/all'"),
        (
            "methods.0={kind: ip_adapter, name: a, model: toybox, weights: no.safetensors, image_encoder: b}",
            "no adapter file no.safetensors",
        ),
        ("methods.0={kind: svdiff, name: a, dtype: float16}", "methods.0.svdiff.dtype"),
        ("methods.0={kind: dreambooth, name: a, model: nowhere/at/all}", "no model 'nowhere/at/all'"),
        ("methods.0.steps=0", "methods.0.model.steps is 0, but must lie between 1 and 1000"),
        ("encoders={kind: pretrained, clip: nowhere/at/all}", "nowhere/at/all"),
    ],
)
def test_recipes_with_faults_are_refused_before_the_work(
    jedi, recipe, tmp_path, monkeypatch, change, message
) -> None:
    monkeypatch.setattr(models, "load_model", pytest.fail)
    words = ["evaluate", recipe, "--out", tmp_path / "out", "--device", "cpu", "--set", change]
    done = jedi(*words)
    assert done.status in (1, 2)
    assert message in done.err


def test_prompts_that_the_encoders_cannot_judge_are_named_first(jedi, recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(models, "load_model", pytest.fail)
    clone = make_clone(tmp_path / "data")
    change = f"set={{kind: dreambench, data: {clone}}}"
    done = jedi("evaluate", recipe, "--out", tmp_path / "out", "--device", "cpu", "--set", change)
    assert done.status == 2
    assert "'a dog wearing a red hat' names no scene" in done.err


def test_an_oracle_without_truths_is_refused(jedi, recipe, tmp_path) -> None:
    home = tmp_path / "own" / "mug"
    clone = make_clone(tmp_path / "data")
    home.mkdir(parents=True)
    (home / "a.jpg").write_bytes((clone / "dataset" / "can" / "00.jpg").read_bytes())
    (home / "subject.json").write_text('{"prompts": ["a {} on the beach"]}')
    changes = [
        f"set={{kind: folder, data: {home.parent}, samples: 1}}",
        "methods=[{kind: oracle, name: truth}]",
    ]
    words = [word for change in changes for word in ("--set", change)]
    done = jedi("evaluate", recipe, "--out", tmp_path / "out", "--device", "cpu", *words)
    assert done.status == 2
    assert "needs a true picture for every prompt" in done.err


@pytest.mark.parametrize("name", ["toybox", "finetuning"])
def test_the_shipped_recipes_need_no_download(jedi, tmp_path, name) -> None:
    path = CONFIGS / "evaluate" / f"{name}.yaml"
    done = jedi("evaluate", path, "--out", tmp_path / "out", "--device", "cpu", "--dry-run")
    assert done.status == 0, done.err
    assert not (tmp_path / "out").exists()
    recipe = EvaluationRecipe.model_validate(yaml.safe_load(path.read_text()))
    assert {method.model for method in recipe.methods} == {"toybox"}
    assert recipe.encoders[0].kind == recipe.set.kind == "toybox"


def test_recipes_of_the_papers_tables_are_told_where_they_went(jedi, tmp_path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("tables: ['4']\n")
    for given, named in (("paper_tables", "full"), ("paper_tables_quick", "quick"), (mine, mine)):
        done = jedi("evaluate", given, "--out", tmp_path / "out")
        assert done.status == 2
        assert f"`python -m experiments.paper_tables {named}` makes them" in done.err
