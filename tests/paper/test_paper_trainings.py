"""Trainings as pieces: equal from one backbone, made once, and carried on where they were stopped."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.paper_tables import training as trainings_module
from experiments.paper_tables.plan import Training
from experiments.paper_tables.recipe import EncoderSection, PaperRecipe
from experiments.paper_tables.training import Sources, Trainings
from jedi_diffusion.errors import RecipeError
from jedi_diffusion.trainer.loop import Trainer
from tests.helpers.plain_source import PlainSource, image_set
from tests.helpers.small_paper import small_recipe

DESIGNS = ("joint", "cached", "clip", "concatenation", "learned", "joint_clip")


def trainings(folder: Path, **changes: object) -> Trainings:
    recipe = PaperRecipe.model_validate(small_recipe(**changes))
    return Trainings(recipe, Sources(PlainSource(), PlainSource(), [image_set(90, 32)]), folder, "cpu")


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "trainings" / name / "finished.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainings")
    made = trainings(folder)
    made.train_backbone()
    made.train_encoder()
    return folder


def test_every_design_is_trained_and_opened(trained: Path) -> None:
    made = trainings(trained)
    backbone = made.facts("backbone")["parameters"]
    for design in DESIGNS:
        training = Training(design, 6)
        made.train(training)
        network = made.open(training)
        state = {name: value.clone() for name, value in network.trained.state_dict().items()}
        assert same(state, weights(trained, training.name))
        own = network.parameters - sum(each.numel() for each in network.pipeline.text_encoder.parameters())
        assert (own == backbone) == (design in ("joint", "cached", "concatenation"))
        assert not (trained / "trainings" / training.name / "sets" / "state").exists()
    assert not any(name.startswith("encoder.features") for name in weights(trained, "clip-6")), (
        "the stand-in for CLIP is not stored again"
    )
    unet, other = (weights(trained, name)["unet.conv_in.weight"] for name in ("joint-6", "cached-6"))
    assert not torch.equal(unet, other)


def test_what_is_done_is_not_done_again(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainings(trained)
    made.train(Training("learned", 6))
    for name in ("stage_trainer", "TrainingRun", "open_network"):
        monkeypatch.setattr(trainings_module, name, pytest.fail)
    again = trainings(trained)
    again.train_backbone()
    again.train_encoder()
    again.train(Training("learned", 6))


def test_a_training_stopped_within_ends_in_the_same_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training("concatenation", 4)
    made = {}
    for name in ("whole", "stopped"):
        shutil.copytree(trained / "trainings" / "backbone", tmp_path / name / "trainings" / "backbone")
        made[name] = trainings(tmp_path / name, training__steps=3)
    made["whole"].train(training)
    advance, steps = Trainer.advance, []

    def stopping(self):  # type: ignore[no-untyped-def]
        steps.append(self.step)
        if steps == [0, 1]:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", stopping)
    with pytest.raises(KeyboardInterrupt, match="Stopped after step 2 of sets; the same command goes on"):
        made["stopped"].train(training)
    torch.manual_seed(1)
    made["stopped"].train(training)
    assert steps == [0, 1, 2], "no step twice"
    assert same(*(weights(tmp_path / name, training.name) for name in ("whole", "stopped")))


def test_amounts_are_parts_of_one_pool_and_draws_are_equal(trained: Path) -> None:
    made = trainings(trained)
    pool = made.pool("sets")
    part = trainings_module._first(pool, 2)
    assert len(pool.latents) == 6
    assert torch.equal(part.latents, pool.latents[:2])
    assert len(part.names) == 2
    assert len(made.pool("views").latents) == 3


def test_another_recipe_needs_another_folder(trained: Path) -> None:
    trainings(trained).train(Training("joint", 2))
    with pytest.raises(RecipeError, match=r"joint-2 was made by another recipe \(another stage"):
        trainings(trained, training__steps=5).train(Training("joint", 2))
    with pytest.raises(RecipeError, match=r"backbone was made by another recipe \(another recipe"):
        trainings(trained, backbone__seed=4).train_backbone()


def test_a_key_that_an_older_record_lacks_has_its_default(trained: Path) -> None:
    home = trained / "trainings" / "encoder"
    record = json.loads((home / "piece.json").read_text())
    older = record | {"stage": record["stage"].copy(), "backbone": "the digest of a recipe without a key"}
    lacking = next(
        name for name, each in EncoderSection.model_fields.items() if older["stage"][name] == each.default
    )
    del older["stage"][lacking]
    (home / "piece.json").write_text(json.dumps(older))
    trainings(trained).train_encoder()
    older["stage"]["tokens"] = 3
    (home / "piece.json").write_text(json.dumps(older))
    with pytest.raises(RecipeError, match=r"encoder was made by another recipe \(another stage"):
        trainings(trained).train_encoder()
    (home / "piece.json").write_text(json.dumps(record))
