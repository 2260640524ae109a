"""A training that is killed and started again ends in the same weights, whatever is trained."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from jedi_diffusion.errors import ModelError, RecipeError
from jedi_diffusion.train.stage import stage_trainer
from jedi_diffusion.trainer.loop import Trainer
from jedi_diffusion.trainer.settings import Every
from jedi_toybox import encoder_training
from jedi_toybox.encoder_training import EncoderRecipe, encoder_trainer
from tests.helpers.tiny_runs import STAGED, recipe, run_of, save_base, save_subjects, staged_run, with_dropout

ENCODERS = EncoderRecipe(subjects=8, pictures=2, groups=2, subjects_per_noun=2, others=4, steps=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose UNet draws from torch's global state in training."""
    folder = tmp_path_factory.mktemp("base")
    return with_dropout(save_base(folder / "sd"), folder / "dropout")


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_subjects(tmp_path_factory.mktemp("subjects") / "photos")


@pytest.fixture(autouse=True)
def rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_training, "render_pool", render_pool)


render_pool = cache(encoder_training.render_pool)


def staged(name: str) -> Callable[..., Trainer]:
    def make(folder: Path, *_: Path) -> Trainer:
        run = staged_run(folder)
        (stage,) = (each for each in run.recipe.stages if each.name == name)
        (folder / name).mkdir(parents=True, exist_ok=True)
        return stage_trainer(run._task(stage, 0, folder / name), stage, run.recipe, folder, "cpu")

    return make


def mixture(**changes: object) -> Callable[..., Trainer]:
    return lambda folder, base, subjects: run_of(folder, recipe(base, subjects, **changes)).trainer


KINDS: dict[str, Callable[..., Trainer]] = {
    "autoencoder": staged("autoencoder"),
    "pairs": staged("pairs"),
    "sets, plain attention": staged("sets"),
    "mixture": mixture(training__channels_last=True),
    "fresh UNet": mixture(fresh_unet=True, training__schedule="cosine"),
    "lora": mixture(lora={"rank": 2}),
    "encoders": lambda folder, *_: encoder_trainer(ENCODERS, "cpu", folder),
}


def everything(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Weights, average, moments and buffers."""
    return {name: value.detach().clone() for name, value in trainer._state()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_killed_before_and_after_a_checkpoint_is_the_same(
    tmp_path: Path, base: Path, subjects: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Bit for bit, whatever torch's global state is at each start."""
    monkeypatch.setitem(STAGED["model"]["unet"], "dropout", 0.2)  # type: ignore[index]

    def start(name: str, seed: int) -> Trainer:
        torch.manual_seed(seed)
        trainer = KINDS[kind](tmp_path / name, base, subjects)
        trainer.settings = replace(trainer.settings, save=Every(steps=2), progress_bar=False)
        return trainer

    whole = start("whole", 1)
    first = everything(whole)
    whole.train()
    advance = Trainer.advance
    for last, found in ((1, 0), (3, 0)):  # the first checkpoint is that of step 2
        killed = start("killed", 10 + last)
        assert killed.step == found

        def dies(self: Trainer, last: int = last) -> tuple[torch.Tensor, torch.Tensor]:
            if self.step == last:
                raise MemoryError
            return advance(self)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "advance", dies)
            with pytest.raises(MemoryError):
                killed.train()
    resumed = start("killed", 20)
    assert resumed.step == 2
    resumed.train()
    assert resumed.step == whole.step == 4
    ended, again = everything(whole), everything(resumed)
    assert ended.keys() == again.keys()
    for name, value in ended.items():
        assert torch.equal(value, again[name]), name
    assert any(not torch.equal(value, ended[name]) for name, value in first.items()), "something is learned"
    assert not any(each.requires_grad for each in whole.average.values()), "a graph would grow"


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    encoder_trainer(ENCODERS, "cpu", tmp_path / "encoders").train()
    with pytest.raises(RecipeError, match="was trained on other data than there is now"):
        encoder_trainer(replace(ENCODERS, seed=1), "cpu", tmp_path / "encoders")
    KINDS["pairs"](tmp_path / "stage").train()
    shutil.move(tmp_path / "stage" / "pairs" / "state", tmp_path / "stage" / "autoencoder" / "state")
    with pytest.raises(ModelError, match="is of other networks than are trained now"):
        KINDS["autoencoder"](tmp_path / "stage")


def test_parameters_that_have_had_no_gradient_are_restored(tmp_path: Path) -> None:
    """As of a run stopped while the first steps were skipped: AdamW keeps nothing of them yet."""
    trainer = KINDS["pairs"](tmp_path)
    trainer.save()
    assert KINDS["pairs"](tmp_path).step == 0
