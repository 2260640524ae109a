"""Training a base model on sets: what is learned, resumed, saved, and shared between processes."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.backbones.unet import coupled_slope
from jedi_diffusion.cli import main
from jedi_diffusion.errors import JeDiError, ModelError, RecipeError, UsageError
from jedi_diffusion.train import network
from jedi_diffusion.train.batches import Examples
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.joint_run import JointRun, put_fresh_network, start_processes
from jedi_diffusion.train.plan import plan_step
from jedi_diffusion.train.sharding import whole_network
from jedi_diffusion.trainer.state import checkpoints
from tests.helpers.small_pipelines import sd_parts
from tests.helpers.tiny_runs import COLORS, recipe, run_of, save_base, save_subjects
from tests.helpers.two_processes import run_in_two_processes


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_subjects(tmp_path_factory.mktemp("subjects") / "photos")


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(run: JointRun) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in run.trainer.parameters.items()}


def test_a_run_writes_log_checkpoints_and_a_model_that_samples(tmp_path, base, subjects) -> None:
    run = run_of(tmp_path, recipe(base, subjects, records__sample_every=4))
    result = run.train()
    assert result == tmp_path / "model"
    logged = rows(tmp_path)
    assert [row["step"] for row in logged] == [1, 2, 3, 4]
    assert logged[0]["loss_by_source"].keys() == {str(subjects)}
    assert {size for row in logged for size in row["loss_by_set_size"]} == {"1", "2", "3"}
    assert all(row["pictures_per_second"] > 0 and row["memory_gib"] > 0 for row in logged)
    assert all(row["tflops_per_device"] > 0 and row["mfu"] is None for row in logged)
    assert all(0 <= row["waiting"] < 1 for row in logged)
    assert {role for row in logged for role in row["loss_by_role"]} == {"target", "reference"}
    assert [path.name for path in checkpoints(tmp_path / "state")] == ["step-00000002", "step-00000004"]
    assert (tmp_path / "samples-0000004.png").stat().st_size > 1000
    card = (result / "README.md").read_text()
    assert str(base) in card
    assert "4 steps of 4 sets at 32 pixels" in card
    assert json.loads((result / "recipe.json").read_text())["name"] == "tiny"
    pipe = JeDiPipeline.from_pretrained(result)
    torch.testing.assert_close(
        pipe.unet.state_dict(),
        {
            name.removeprefix("denoiser.unet."): value
            for name, value in run.trainer.average.items()
            if name.startswith("denoiser.unet.")
        },
    )
    pipe.set_progress_bar_config(disable=True)
    picture = Image.new("RGB", (32, 32), COLORS[0])
    made = pipe("a thing", references=[picture], num_inference_steps=2, height=32, width=32)
    assert made.images[0].size == (32, 32)


def test_the_loss_falls_on_a_handful_of_sets(tmp_path, base, subjects) -> None:
    """Overfitting: targets and references both."""
    raw = recipe(base, subjects, training__steps=60, training__learning_rate=3e-3, records__save_every=60)
    run_of(tmp_path, raw).train()
    losses = [row["loss"] for row in rows(tmp_path)]
    assert sum(losses[-15:]) < 0.8 * sum(losses[:15])


def test_a_resumed_run_reads_no_set_again(tmp_path, base, subjects, monkeypatch) -> None:
    run_of(tmp_path, recipe(base, subjects)).train()
    shutil.rmtree(checkpoints(tmp_path / "state")[-1])
    resumed = run_of(tmp_path, recipe(base, subjects))
    assert resumed.trainer.step == 2
    read = []
    monkeypatch.setattr(resumed.mixture, "_read", spy(resumed.mixture._read, read))
    resumed.train()
    assert {pick.place for pick, _ in read} == set(range(8, 16))


def spy(function, calls):
    def called(*given):
        calls.append(given)
        return function(*given)

    return called


def test_stopping_writes_a_checkpoint_and_says_how_to_go_on(tmp_path, base, subjects, monkeypatch) -> None:
    run = run_of(tmp_path, recipe(base, subjects, records__save_every=100))
    stop_after(run, 3, monkeypatch)
    assert run_of(tmp_path, recipe(base, subjects)).trainer.step == 3


def stop_after(run: JointRun, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    end_step = run.task.end_step

    def interrupted(sound: bool) -> None:
        end_step(sound)
        if run.trainer.step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run.task, "end_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match=f"Stopped after step {step} of tiny; the same command"):
        run.train()


@pytest.mark.parametrize("kind", ["model", "lora"])
def test_a_stopped_run_is_exported_to_try(tmp_path, base, subjects, monkeypatch, capsys, kind) -> None:
    """By the run's own command, of any checkpoint, without the data."""
    photos = shutil.copytree(subjects, tmp_path / "photos")
    lora = {"lora": {"rank": 2}} if kind == "lora" else {}
    raw = recipe(base, photos, conditions__cached=0.7, **lora)
    run = run_of(tmp_path / "run", raw)
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(run.recipe.model_dump(mode="json"), indent=2))
    stop_after(run, 3, monkeypatch)
    shutil.rmtree(photos)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(raw))
    command = ["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    for given, step in (("last", 3), ("2", 2)):
        assert main([*command, "--export", given]) == 0
        folder = tmp_path / "run" / f"{kind}-{step:08d}"
        assert f"Exported: {folder}" in capsys.readouterr().out
        assert f"{step} of 4 steps" in (folder / "README.md").read_text()
        wanted = load_file(tmp_path / "run" / "state" / f"step-{step:08d}" / "state.safetensors")
        if kind == "model":
            pipe = JeDiPipeline.from_pretrained(folder)
            name, found = "conv_in.weight", pipe.unet.conv_in.weight
        else:
            pipe = JeDiPipeline.from_single_image_model(base)
            pipe.load_lora_weights(folder, adapter_name="default")
            name, found = "conv_in.lora_A.default.weight", pipe.unet.conv_in.lora_A["default"].weight
        assert torch.equal(found, wanted[f"average/denoiser.unet.{name}"])
        assert pipe.own_coupling == "cached"
    for given, message in (
        ("4", "no checkpoint of step 4; it has those of 2, 3"),
        ("newest", "--export is 'newest', but must be the number of a step, or last"),
    ):
        assert main([*command, "--export", given]) == 2
        assert message in capsys.readouterr().err
    assert main([*command[:2], "--out", str(tmp_path / "none"), "--export", "last"]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_steps_whose_gradient_is_not_finite_change_nothing(tmp_path, base, subjects, monkeypatch, caplog):
    """One is skipped; too many in a row end the run with a checkpoint that is sound."""
    raw = recipe(base, subjects, training__steps=9, records__save_every=1, records__keep_last=99)
    step = network.JointStep.forward
    bad = {1, *range(3, 9)}
    run = run_of(tmp_path, raw)
    run.trainer.skipping.patience = 3

    def broken(self, micro):
        return step(self, micro) * (torch.nan if run.trainer.step in bad else 1.0)

    monkeypatch.setattr(network.JointStep, "forward", broken)
    with pytest.raises(JeDiError, match="the last 3 steps, up to step 6, are not finite: lower training"):
        run.train()
    saved = {
        int(path.name[-8:]): load_file(path / "state.safetensors") for path in checkpoints(tmp_path / "state")
    }
    assert max(saved) == 6
    assert all(value.isfinite().all() for state in saved.values() for value in state.values())

    def moved(first: int, second: int) -> set[str]:
        names = [n for n in saved[second] if not n.startswith("optimizer")]
        return {n.split("/")[0] for n in names if not torch.equal(saved[first][n], saved[second][n])}

    assert moved(1, 2) == moved(3, 6) == set()
    assert moved(2, 3) == {"weights", "average"}
    for name, before in saved[2].items():
        if name.startswith("average/"):  # decay (1 + 2) / (10 + 2) at the third step
            trained = saved[3][name.replace("average/", "weights/")]
            torch.testing.assert_close(saved[3][name], 0.25 * before + 0.75 * trained)
    logged = rows(tmp_path)
    assert [row["skipped"] for row in logged[:4]] == [0, 1, 0, 1]
    assert logged[1]["loss"] is logged[1]["gradient_norm"] is None
    assert logged[2]["loss"] > 0
    assert "Step 2 is skipped: the norm of its gradient is nan" in caplog.text


def test_micro_batches_change_nothing_but_rounding(tmp_path, base, subjects) -> None:
    results = []
    for pictures in (3, 100):
        run = run_of(tmp_path / str(pictures), recipe(base, subjects, training__micro_batch=pictures))
        run.train()
        results.append((weights(run), [row["loss"] for row in rows(tmp_path / str(pictures))]))
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)
    for name, value in results[0][0].items():
        torch.testing.assert_close(value, results[1][0][name], atol=2e-4, rtol=1e-3)


def test_the_loss_is_eq_2_over_the_whole_step(tmp_path, base, subjects) -> None:
    """The first step's logged loss and gradient against JointLoss on all of its sets as one batch."""
    from jedi_diffusion.joint.loss import NoiseDraw

    raw = recipe(base, subjects, training__reference_weight=0.3, conditions__cached=0.0)
    run = run_of(tmp_path, raw)
    plan = plan_step(run.recipe, run.mixture, 0)
    micro = run.task.encode(plan.sets, [Examples(run.mixture)[n] for n in range(4)], "joint")
    assert isinstance(micro.draw, NoiseDraw)
    prediction = run.task.network.denoiser(micro.draw.noisy, micro.draw.timesteps, micro.batch)
    top, bottom = torch.zeros(()), 0.0
    for row in range(len(prediction)):
        weight = 0.3 if micro.batch.is_reference[row] else 1.0
        top = top + weight * (prediction[row] - micro.draw.target[row]).square().mean()
        bottom += weight
    gradients = torch.autograd.grad(top / bottom, [*run.trainer.parameters.values()])
    run.train()
    first = rows(tmp_path)[0]
    assert first["loss"] == pytest.approx(top.item() / bottom, rel=1e-4)
    assert first["gradient_norm"] == pytest.approx(torch.nn.utils.get_total_norm(gradients).item(), rel=1e-3)


def test_losses_of_roles_are_those_of_their_pictures(tmp_path, base, subjects) -> None:
    raw = recipe(base, subjects, training__steps=1, training__reference_weight=0.3, conditions__cached=0.0)
    run = run_of(tmp_path, raw)
    plan = plan_step(run.recipe, run.mixture, 0)
    micro = run.task.encode(plan.sets, [Examples(run.mixture)[n] for n in range(4)], "joint")
    with torch.no_grad():
        prediction = run.task.network.denoiser(micro.draw.noisy, micro.draw.timesteps, micro.batch)
    errors = (prediction - micro.draw.target).square().flatten(1).mean(1)
    run.train()
    flags = micro.batch.is_reference
    expected = {"target": errors[~flags].mean().item(), "reference": errors[flags].mean().item()}
    assert rows(tmp_path)[0]["loss_by_role"] == pytest.approx(expected, rel=1e-4)


def test_a_fresh_unet_has_nothing_of_the_base(tmp_path, base, subjects) -> None:
    runs = [
        run_of(tmp_path / str(seed), recipe(base, subjects, fresh_unet=True, seed=seed)) for seed in (0, 0, 1)
    ]
    trained = JeDiPipeline.from_single_image_model(base)
    unets = [run.pipeline.unet.conv_in.weight for run in runs]
    assert torch.equal(unets[0], unets[1])
    assert not torch.equal(unets[0], unets[2])
    assert unets[0][:, 4:].abs().max() > 0, "no channel starts at zero: there is nothing to keep"
    assert not torch.equal(unets[0], trained.unet.conv_in.weight)
    kept = runs[0].pipeline.vae.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in trained.vae.state_dict().items())


def test_unets_made_like_another_attend_by_position_as_it_does() -> None:
    pipe = JeDiPipeline(**sd_parts(in_channels=9), distance_slope=1.5)
    put_fresh_network(pipe, seed=0)
    assert coupled_slope(pipe.unet) == coupled_slope(whole_network(pipe.unet, wanted=True)) == 1.5


@pytest.mark.parametrize("kind", ["sdxl", "inpaint"])
def test_other_bases_train(tmp_path, subjects, kind) -> None:
    raw = recipe(save_base(tmp_path / kind, kind), subjects, training__steps=2)
    run = run_of(tmp_path / "run", raw)
    before = weights(run)
    pipe = JeDiPipeline.from_pretrained(run.train())
    assert pipe.unet.config.in_channels == 9
    assert any(not torch.equal(value, before[name]) for name, value in weights(run).items())


def test_the_model_takes_the_coupling_that_most_steps_used(tmp_path, base, subjects) -> None:
    for share, coupling in ((0.3, "joint"), (0.7, "cached")):
        folder = tmp_path / coupling
        run_of(folder, recipe(base, subjects, conditions__cached=share)).train()
        assert JeDiPipeline.from_pretrained(folder / "model").config.coupling == coupling


def test_a_joint_model_is_trained_further(tmp_path, base, subjects) -> None:
    first = run_of(tmp_path / "first", recipe(base, subjects, training__steps=2)).train()
    run = run_of(tmp_path / "second", recipe(first, subjects, training__steps=2))
    trained = JeDiPipeline.from_pretrained(first).unet.state_dict()
    name = "denoiser.unet.conv_in.weight"
    assert torch.equal(run.trainer.parameters[name], trained["conv_in.weight"])
    assert trained["conv_in.weight"][:, 4:].abs().max() > 0


def test_adapters_load_on_the_base_and_give_the_trained_model(tmp_path, base, subjects) -> None:
    """The loaded model takes the coupling that most steps used, as the trained one does."""
    raw = recipe(base, subjects, lora={"rank": 4}, training__learning_rate=1e-2, conditions__cached=0.7)
    run = run_of(tmp_path, raw)
    names = set(run.trainer.parameters)
    assert all("lora" in name for name in names)
    assert any("conv_in" in name for name in names)
    assert not any("ff.net" in name for name in names)
    folder = run.train()
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".md", ".safetensors"]
    trained = run.pipeline
    loaded = JeDiPipeline.from_single_image_model(base)
    loaded.set_progress_bar_config(disable=True)
    call = {
        "prompt": "a robot",
        "references": [Image.new("RGB", (32, 32), COLORS[1])],
        "num_inference_steps": 2,
        "height": 32,
        "width": 32,
        "output_type": "latent",
    }
    plain = loaded(**call, generator=torch.Generator().manual_seed(0)).images
    loaded.load_lora_weights(folder)
    assert loaded.own_coupling == "cached"
    same = loaded(**call, generator=torch.Generator().manual_seed(0)).images
    expected = trained(**call, generator=torch.Generator().manual_seed(0)).images
    torch.testing.assert_close(same, expected, atol=1e-4, rtol=1e-3)
    assert (same - plain).abs().max() > 1e-2


def test_other_data_in_the_same_folder_is_refused(tmp_path, base) -> None:
    photos = save_subjects(tmp_path / "photos", pictures=2)
    run_of(tmp_path / "run", recipe(base, photos))  # made, but not trained: other data may still come
    (photos / "thing 0" / "0.txt").write_text("a red thing")
    run_of(tmp_path / "run", recipe(base, photos)).train()
    (photos / "thing 0" / "0.txt").write_text("a blue thing")
    with pytest.raises(RecipeError, match=r"trained on other data .*thing 0/0\.txt has changed\."):
        run_of(tmp_path / "run", recipe(base, photos))
    (photos / "thing 0" / "0.txt").write_text("a red thing")
    assert run_of(tmp_path / "run", recipe(base, photos)).trainer.step == 4
    (photos / "thing 1").rename(photos / "thing 7")
    with pytest.raises(RecipeError, match="was trained on other data"):
        run_of(tmp_path / "run", recipe(base, photos))


def test_a_base_that_is_no_model_is_named(tmp_path, subjects) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"The model .*empty cannot be loaded"):
        run_of(tmp_path / "run", recipe(tmp_path / "empty", subjects))


def test_captions_that_are_too_long_are_named_once(tmp_path, base, caplog) -> None:
    subjects = save_subjects(tmp_path / "photos")
    for path in subjects.glob("*/*.png"):
        path.with_suffix(".txt").write_text("a very long caption " * 20)
    run_of(tmp_path / "run", recipe(base, subjects, training__steps=2)).train()
    assert sum("exceeds" in record.message for record in caplog.records) == 1


def test_numbers_of_processes_are_checked(tmp_path, base, subjects) -> None:
    checked = JointRecipe.model_validate(recipe(base, subjects))
    with pytest.raises(UsageError, match="2 processes are asked for, but 1 run: start them with torchrun"):
        start_processes(checked, tmp_path, "cpu", processes=2)


def test_trackers_that_are_missing_are_named(tmp_path, base, subjects) -> None:
    checked = JointRecipe.model_validate(recipe(base, subjects, records__trackers=["wandb"]))
    with pytest.raises(UsageError, match="wandb, which is not installed: pip install wandb"):
        start_processes(checked, tmp_path, "cpu")


def test_trackers_are_told_the_recipe_and_write_into_the_run(tmp_path, base, subjects, monkeypatch) -> None:
    run, told = run_of(tmp_path / "run", recipe(base, subjects, training__steps=1)), []
    records = run.recipe.records.model_copy(update={"trackers": ("wandb",)})
    run.recipe = run.recipe.model_copy(update={"records": records})
    monkeypatch.setattr(run.accelerator, "init_trackers", lambda *given, **more: told.append((given, more)))
    run.train()
    ((names, more),) = told
    assert names == ("tiny",)
    assert JointRecipe.model_validate_json(more["config"]["recipe"]) == run.recipe
    assert more["init_kwargs"] == {"wandb": {"dir": str(tmp_path / "run")}}


def test_two_processes_train_what_one_trains(tmp_path, base, subjects) -> None:
    """With whole weights and sharded (FSDP2); resumed by as many processes, by more, and by fewer."""
    plain = recipe(base, subjects, training__micro_batch=3, conditions__cached=0.5)
    sharded = plain | {"training": plain["training"] | {"sharded": True}}
    sharded["records"] = plain["records"] | {"sample_every": 3}
    for name, raw in (("plain", plain), ("sharded", sharded)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(raw))

    def train(kind: str, name: str) -> list:
        return ["train", tmp_path / f"{kind}.yaml", "--out", tmp_path / name]

    def take_over(begun: str, name: str) -> None:
        half = "state/step-00000002"
        shutil.copytree(tmp_path / begun / half, tmp_path / name / half)

    run_of(tmp_path / "one", plain).train()
    take_over("one", "one_two")
    take_over("one", "one_sharded")
    printed = run_in_two_processes(
        [
            train("plain", "two"),
            ["forget", tmp_path / "two"],
            train("plain", "two"),
            train("plain", "one_two"),
            train("sharded", "sharded"),
            ["forget", tmp_path / "sharded"],
            train("sharded", "sharded"),
            train("sharded", "one_sharded"),
        ]
    )
    assert printed.count("Trained:") == 6
    for begun in ("two", "sharded"):
        take_over(begun, f"{begun}_one")
        run_of(tmp_path / f"{begun}_one", plain).train()

    expected = [row["loss"] for row in rows(tmp_path / "one")]
    weights = JeDiPipeline.from_pretrained(tmp_path / "one" / "model").unet.state_dict()
    again = dict.fromkeys(("two", "sharded"), (1, 2, 3, 4))
    taken = dict.fromkeys(("one_two", "one_sharded", "two_one", "sharded_one"), (3, 4))
    for name, steps in (again | taken).items():
        losses = [row["loss"] for row in rows(tmp_path / name)]
        assert [row["step"] for row in rows(tmp_path / name)] == list(steps)
        assert losses == pytest.approx([expected[step - 1] for step in steps], rel=1e-4)
        both = JeDiPipeline.from_pretrained(tmp_path / name / "model").unet.state_dict()
        assert both.keys() == weights.keys()
        for key, value in weights.items():
            torch.testing.assert_close(both[key], value, atol=1e-4, rtol=1e-3)
    assert (tmp_path / "sharded" / "samples-0000003.png").stat().st_size > 1000
    whole, parts = (
        load_file(checkpoints(tmp_path / name / "state")[-1] / "state.safetensors")
        for name in ("one", "sharded")
    )
    assert {name: value.shape for name, value in whole.items()} == {
        name: value.shape for name, value in parts.items()
    }
