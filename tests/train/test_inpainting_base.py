"""Training from an inpainting checkpoint: targets show what the checkpoint was trained with."""

from pathlib import Path

import torch

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.cli.train import _open_mixture
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.joint_run import JointRun, start_processes
from tests.helpers.tiny_runs import recipe, save_base, save_subjects


def test_targets_show_what_an_inpainting_base_was_trained_with(tmp_path: Path) -> None:
    base, subjects = save_base(tmp_path / "base", "inpaint"), save_subjects(tmp_path / "photos")
    checked = JointRecipe.model_validate(recipe(base, subjects, training__steps=1, training__batch=8))
    folder = tmp_path / "run"
    folder.mkdir()
    accelerator = start_processes(checked, folder, "cpu")
    run = JointRun(checked, _open_mixture(checked, folder, accelerator), folder, accelerator)
    shown, denoiser = [], run.trainer.network.denoiser
    with denoiser.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[2])):
        run.train()
    grey = run.pipeline.blank_latents(32, 32)
    assert grey is not None
    assert grey.abs().max() > 0.01
    assert {flag for batch in shown for flag in batch.is_reference.tolist()} == {True, False}
    for batch in shown:
        given = batch.is_reference
        targets = batch.reference_latents[~given]
        torch.testing.assert_close(targets, grey.expand_as(targets))
        assert torch.equal(batch.reference_latents[given], batch.latents[given])
    saved = JeDiPipeline.from_pretrained(folder / "model")
    assert saved.config.targets_show == "grey"
