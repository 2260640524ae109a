"""Every recipe that ships reads, and those of base models train a few steps on tiny stand-ins."""

import json
import re
from pathlib import Path

import pytest

from jedi_diffusion.cli import main
from jedi_diffusion.errors import RecipeError
from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.recipes import CONFIGS
from jedi_diffusion.train.config import checked, read_yaml
from jedi_diffusion.train.joint_recipe import JointRecipe
from tests.helpers.tiny_runs import save_base, save_subjects
from tests.helpers.two_processes import run_in_two_processes

TRAIN = CONFIGS / "train"
JOINT = sorted(path for path in TRAIN.glob("*.yaml") if "base" in read_yaml(path))


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = checked(JointRecipe, read_yaml(TRAIN / "paper_sd14.yaml"), TRAIN)
    assert (recipe.training.batch, recipe.training.steps) == (2048, 140_000)
    assert (recipe.training.learning_rate, recipe.training.schedule) == (5e-5, "constant")
    assert (recipe.conditions.reference, recipe.conditions.cached) == (0.5, 0)
    assert [source.kind for source in recipe.data.sources] == ["sets", "video", "multiview", "single"]
    assert len({source.probability for source in recipe.data.sources}) == 1
    assert [source.sizes for source in recipe.data.sources] == [(2, 3, 4)] * 3 + [(1,)]
    assert recipe.lora is None


def stand_ins(path: Path, folder: Path) -> list[str]:
    """The command that trains a recipe for two steps on a tiny base and a few pictures, all in `folder`."""
    kind = next((kind for kind in ("inpaint", "sdxl", "klein", "flux", "sd35") if kind in path.stem), "sd")
    base, subjects = save_base(folder / "base", kind), save_subjects(folder / "photos", pictures=4)
    given = read_yaml(path)["data"]["sources"]
    source = {"kind": "folders", "place": str(subjects)}
    if any("encoded" in each for each in given):
        sets, name = str(folder / "sets"), given[0]["encoded"]
        assert main(["data", "pack", str(subjects), "--out", sets, "--size", "32"]) == 0
        store = ["--name", name, "--resolution", "32", "--store", "bfloat16"]
        assert main(["data", "encode", sets, "--base", str(base), *store]) == 0
        source = {"kind": "sets", "place": sets, "encoded": name}
    words = ["train", str(path), "--out", str(folder / "run")]
    changes = [f"base={base}", f"data.sources={json.dumps([source])}", "data.resolution=32", "data.workers=0"]
    changes += ["training.steps=2", "training.batch=2", "training.micro_batch=4", "records={log_every: 1}"]
    return words + [word for change in changes for word in ("--set", change)]


def check_run(path: Path, folder: Path) -> None:
    assert (folder / "run" / ("lora" if "lora" in read_yaml(path) else "model")).is_dir()
    rows = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


@pytest.mark.parametrize("path", JOINT, ids=lambda path: path.stem)
def test_recipes_of_base_models_train(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*stand_ins(path, tmp_path), "--device", "cpu"]) == 0
    assert "Trained:" in capsys.readouterr().out
    check_run(path, tmp_path)


@pytest.mark.slow
def test_recipes_of_base_models_train_in_two_processes(tmp_path: Path) -> None:
    """All in one start; that of SDXL also sharded, with its gradient checkpoints and both couplings."""
    runs = [(path, tmp_path / path.stem) for path in JOINT]
    commands = [stand_ins(path, folder) for path, folder in runs]
    runs.append((TRAIN / "sdxl.yaml", tmp_path / "sharded"))
    commands.append([*stand_ins(*runs[-1]), "--set", "training.sharded=true"])
    assert run_in_two_processes(commands).count("Trained:") == len(commands)
    for path, folder in runs:
        check_run(path, folder)


@pytest.mark.slow
def test_the_toybox_recipe_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jedi_diffusion.train.samples.STEPS", 2)
    monkeypatch.setattr("jedi_diffusion.cli.train.SHOWN_SETS", 2)
    words = ["train", str(TRAIN / "toybox.yaml"), "--out", str(tmp_path), "--device", "cpu"]
    changes = [
        "supersample=1",
        "model.unet.block_out_channels=[32, 32, 32]",
        "model.unet.attention_head_dim=1",
    ]
    for stage in range(2):
        changes += [f"stages.{stage}.{key}" for key in ("subjects=8", "steps=2", "batch=8", "resolution=32")]
    for change in changes:
        words += ["--set", change]
    assert main(words) == 0
    assert (tmp_path / "model" / "model_index.json").is_file()


@pytest.mark.parametrize(
    ("name", "millions", "gigabytes", "days"),
    [
        ("klein4b_lora", (3875.5, 48.2), (8, 22), 0.63),
        pytest.param("klein4b_cached", (3875.5, 96.3), (8, 22), 3.6, marks=pytest.mark.slow),
        pytest.param("flux_dev_lora", (11901.4, 130.7), (24, 44), 3.3, marks=pytest.mark.slow),
        pytest.param("sd35_medium", (2243.2, 2243.2), (41, 60), 34, marks=pytest.mark.slow),
    ],
)
def test_published_bases_are_counted_without_their_weights(name, millions, gigabytes, days, capsys) -> None:
    """Parameters of the transformers as they are published; the gigabytes are those of one process."""
    assert main(["train", name, "--out", "nowhere", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "Network: {:.1f}M parameters, {:.1f}M of them trained".format(*millions) in said
    memory = float(re.search(r"Memory of a process: ([\d.]+) GiB", said)[1])
    assert gigabytes[0] < memory < gigabytes[1]
    assert float(re.search(r"peak: ([\d.]+) days on one", said)[1]) == pytest.approx(days, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.stepps=3", r"training\.stepps is not known"),
        ("training.batch=many", r"training\.batch is 'many', but must be a valid integer"),
        ("data.sources.0.kind=movies", r"data\.sources\.0: Input tag 'movies'"),
        ("training.micro_batch=3", "a set of 4 pictures does not fit training.micro_batch, 3"),
        ("conditions.reference=1.5", r"conditions\.reference is 1.5, but must be less than or equal to 1"),
        ("training.sharded=true", r"training: sharded splits weights by rows"),
    ],
)
def test_faults_are_named_by_their_keys(change: str, message: str) -> None:
    path = TRAIN / "paper_sd14.yaml"
    with pytest.raises(RecipeError, match=message):
        checked(JointRecipe, read_yaml(path, [change]), path)


@pytest.mark.parametrize("change", ["training.steps", "name.x=1", "data.sources.9.kind=sets", "=3"])
def test_changes_that_fit_nothing_are_refused(change: str) -> None:
    path = TRAIN / "paper_sd14.yaml"
    with pytest.raises(RecipeError, match=r"write KEY=VALUE|does not fit"):
        checked(JointRecipe, read_yaml(path, [change]), path)


def test_changes_reach_nested_keys_and_lists() -> None:
    raw = read_yaml(TRAIN / "paper_sd14.yaml", ["training.steps=7", "data.sources.1.gap=2.5", "lora.rank=8"])
    assert raw["training"]["steps"] == 7
    assert raw["data"]["sources"][1]["gap"] == 2.5
    assert raw["lora"] == {"rank": 8}


def test_options_of_the_other_kind_of_recipe_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(TRAIN / "paper_sd14.yaml"), "--out", "nowhere", "--minutes", "3"]
    assert main(words) == 2
    assert "--minutes is for recipes in stages" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*local_dir_use_symlinks")  # diffusers says it to the Hub
def test_a_dry_run_prints_the_resolved_recipe_and_writes_nothing(tmp_path, capsys) -> None:
    words = ["train", str(TRAIN / "sdxl.yaml"), "--out", str(tmp_path / "run"), "--dry-run"]
    assert main([*words, "--set", "training.steps=5"]) == 0
    out = capsys.readouterr().out
    assert json.JSONDecoder().raw_decode(out)[0]["training"]["steps"] == 5
    assert "No estimate of memory and time" in out  # the base is on the Hub, and tests are offline
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_stages_counts_parameters_and_writes_nothing(tmp_path: Path, capsys) -> None:
    words = ["train", str(TRAIN / "toybox.yaml"), "--out", str(tmp_path / "run"), "--dry-run"]
    for change in ("model.unet.block_out_channels=[32, 32, 32]", "model.unet.attention_head_dim=1"):
        words += ["--set", change]
    assert main(words) == 0
    printed = re.search(r"Parameters: autoencoder (.*)M, .* UNet (.*)M", capsys.readouterr().out)
    autoencoder = PatchAutoencoder(latent_channels=40, widths=(64, 128))
    assert float(printed[1]) == pytest.approx(autoencoder.num_parameters() / 1e6, abs=0.05)
    assert 0.2 < float(printed[2]) < 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.unet.block_out_channels=abc", "model.unet cannot be built"),
        ("model.unet.block_out_channels=[32, 32]", "model.unet cannot be built: .*same number"),
        ("model.unet.sample_siz=3", "model.unet cannot be built: .*'sample_siz'"),
        ("model.unet.attention_head_dim=0", "model.unet cannot be built: ZeroDivisionError"),
        ("model.unet.in_channels=3", "model.unet.in_channels follows from the rest of the recipe"),
        ("model.autoencoder.widths=7", "model.autoencoder cannot be built"),
        ("model.autoencoder.latent_channels=-1", "model.autoencoder cannot be built"),
        ("model.scheduler.beta_schedule=steep", "model.scheduler cannot be built: .*steep"),
        ("model.text_heads=5", "model: .*text_heads must divide text_width, 192, but is 5"),
    ],
)
def test_settings_that_build_nothing_are_named_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    words = ["train", str(TRAIN / "toybox.yaml"), "--out", str(tmp_path / "run"), "--set", change]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert re.search(message, told)
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()
