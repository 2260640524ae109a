import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.backbones.unet import coupled_slope
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.train import runner
from jedi_diffusion.train.config import Recipe
from jedi_diffusion.train.export import export_stages
from jedi_diffusion.train.runner import TrainingRun
from tests.helpers.plain_source import PlainSource, image_set
from tests.helpers.tiny_runs import STAGED, staged_run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    pipe = JeDiPipeline.from_pretrained(folder)
    return {**pipe.unet.state_dict(), **{f"vae.{k}": v for k, v in pipe.vae.state_dict().items()}}


def test_a_run_leaves_a_model_that_samples_with_logs_and_sheets(tmp_path: Path) -> None:
    folder = staged_run(tmp_path).train()
    assert {path.name for path in folder.iterdir()} >= {"model_index.json", "unet", "vae", "recipe.json"}
    assert json.loads((folder / "recipe.json").read_text())["name"] == "plain"
    pipe = JeDiPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.config.coupling == "cached"
    assert coupled_slope(pipe.unet) == 1.5
    assert pipe.config.temperature == 0.6
    reference = image_set(90, 32).pictures[0]
    for coupling in ("joint", "cached"):
        made = pipe("a cube one", references=[reference], num_inference_steps=2, coupling=coupling).images
        assert made[0].size == (32, 32)
    for stage in ("autoencoder", "pairs", "sets"):
        assert (tmp_path / stage / "samples-0000004.png").stat().st_size > 1000
        assert not (tmp_path / stage / "pool.safetensors").exists()
    x = torch.zeros(1, 3, 32, 32)
    assert pipe.vae.encode(x).latent_dist.mode().isfinite().all()


def test_a_fresh_model_predicts_zero_and_moves_its_outputs_by_their_channels_deviation(
    tmp_path: Path,
) -> None:
    run = staged_run(tmp_path)
    assert not any(parameter.any() for parameter in run.models.unet.conv_out.parameters())
    run.train(["autoencoder"])
    stage = run.recipe.stages[1]
    (tmp_path / stage.name).mkdir()
    task = run._task(stage, 80, tmp_path / stage.name)
    latents = load_file(tmp_path / stage.name / "pool.safetensors")["latents"].float()
    deviation = latents.movedim(2, 0).flatten(1).std(1)
    assert set(task.step_shares) == {"unet.conv_out.weight", "unet.conv_out.bias"}
    for share in task.step_shares.values():
        torch.testing.assert_close(share.flatten(), deviation)


def test_a_run_killed_between_and_within_stages_ends_in_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, whatever torch's global state is at each start."""
    monkeypatch.setitem(STAGED["model"]["unet"], "dropout", 0.2)  # type: ignore[index]
    whole = weights(staged_run(tmp_path / "whole").train())
    losses = runner.JointTask.loss
    for stop_at in (1, 6):  # in the first step of "pairs"; then in the middle of "sets"
        torch.manual_seed(stop_at)
        calls = 0

        def stopping(self, generator, stop_at=stop_at):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise KeyboardInterrupt
            return losses(self, generator)

        monkeypatch.setattr(runner.JointTask, "loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            staged_run(tmp_path / "killed").train()
    monkeypatch.setattr(runner.JointTask, "loss", losses)
    torch.manual_seed(20)
    again = weights(staged_run(tmp_path / "killed").train())
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_stage_under_way_is_exported_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = runner.JointTask.loss
    with pytest.raises(UsageError, match="holds no checkpoint of a stage that is under way"):
        export_stages(staged_run(tmp_path), None)

    def stopping(self, generator):  # type: ignore[no-untyped-def]
        if self.stage.name == "sets" and asked.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        asked.step += self.stage.name == "sets"
        return losses(self, generator)

    asked = SimpleNamespace(step=0)
    monkeypatch.setattr(runner.JointTask, "loss", stopping)
    with pytest.raises(KeyboardInterrupt, match="Stopped after step 3 of sets; the same command goes on"):
        staged_run(tmp_path).train()
    folder = export_stages(staged_run(tmp_path), 3)
    assert folder == tmp_path / "model-sets-00000003"
    state = load_file(tmp_path / "sets" / "state" / "step-00000003" / "state.safetensors")
    found = JeDiPipeline.from_pretrained(folder)
    assert torch.equal(found.unet.conv_in.weight, state["average/unet.conv_in.weight"].half())
    trained = load_file(tmp_path / "autoencoder" / "finished.safetensors")
    assert all(torch.equal(v, trained[f"autoencoder.{k}"].half()) for k, v in found.vae.state_dict().items())
    with pytest.raises(UsageError, match="no checkpoint of step 2; it has those of 3"):
        export_stages(staged_run(tmp_path), 2)
    for stage in ("autoencoder", "sets"):  # as if the first stage had been stopped
        (tmp_path / stage).rename(tmp_path / f"was-{stage}")
    (tmp_path / "was-sets").rename(tmp_path / "autoencoder")
    with pytest.raises(UsageError, match="autoencoder is not finished: there is no model to try before"):
        export_stages(staged_run(tmp_path), None)


def test_a_trained_model_can_be_trained_further(tmp_path: Path) -> None:
    folder = staged_run(tmp_path / "first").train()
    recipe = Recipe.model_validate(STAGED)
    run = TrainingRun(recipe, PlainSource(), [image_set(90, 32)], tmp_path / "second", "cpu", init=folder)
    before = weights(folder)
    assert torch.allclose(run.models.unet.conv_in.weight, before["conv_in.weight"], atol=1e-3)
    after = weights(run.train(["sets"]))
    assert not torch.equal(after["conv_in.weight"], before["conv_in.weight"])
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("vae."))
    with pytest.raises(UsageError, match="no stage 'set'; it has autoencoder, pairs, sets"):
        run.train(["set"])


def test_stages_trained_one_by_one_end_in_the_same_model(tmp_path: Path) -> None:
    whole = weights(staged_run(tmp_path / "whole").train())
    for stage in ("autoencoder", "pairs", "sets"):
        parts = weights(staged_run(tmp_path / "parts").train([stage]))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_stage_needs_those_before_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="autoencoder comes before pairs and is not trained: train it first"):
        staged_run(tmp_path).train(["pairs"])


def test_a_trained_autoencoder_is_not_started_over(tmp_path: Path) -> None:
    folder = staged_run(tmp_path / "first").train()
    recipe = Recipe.model_validate(STAGED)
    run = TrainingRun(recipe, PlainSource(), [image_set(90, 32)], tmp_path / "second", "cpu", init=folder)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    before = run.models.autoencoder(x).sample.detach()
    run._task(recipe.stages[0], 0, tmp_path)
    assert torch.equal(run.models.autoencoder(x).sample, before)


def test_a_model_of_other_words_is_refused(tmp_path: Path) -> None:
    folder = staged_run(tmp_path / "first").train()
    source = PlainSource()
    source.words = ("a", "ball")
    with pytest.raises(ModelError, match="trained on words"):
        TrainingRun(Recipe.model_validate(STAGED), source, [], tmp_path / "second", "cpu", init=folder)
