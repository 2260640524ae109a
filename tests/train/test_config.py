from pathlib import Path

import pytest

from jedi_diffusion.errors import RecipeError
from jedi_diffusion.recipes import CONFIGS
from jedi_diffusion.train.config import for_device, load_recipe

RECIPE = CONFIGS / "train" / "toybox.yaml"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = RECIPE.read_text()
    assert old in text
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_bundled_recipe_fits_both_devices(device: str) -> None:
    recipe = load_recipe(RECIPE, device)
    assert [stage.kind for stage in recipe.stages] == ["autoencoder", "joint"]
    assert sum(stage.share for stage in recipe.stages) == pytest.approx(1)


def test_values_per_device_are_chosen_anywhere() -> None:
    raw = {"a": {"cpu": 1, "cuda": 2}, "b": [{"c": {"cuda": [3], "cpu": {"d": 4}}}], "cpu": 5}
    assert for_device(raw, "cpu") == {"a": 1, "b": [{"c": {"d": 4}}], "cpu": 5}
    assert for_device(raw, "cuda") == {"a": 2, "b": [{"c": [3]}], "cpu": 5}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seed: 0", "sed: 0", "sed"),
        ("learning_rate: 0.001", "learning_rate: -1", "stages.0.autoencoder.learning_rate"),
        ("{1: 0.05, 2: 0.8,", "{1: 0.05, 9: 0.8,", "set_sizes goes up to 9, but a subject has only 3"),
        ("kind: autoencoder", "kind: joint", "stages.0"),
        ("name: autoencoder", "name: sets", "two stages have the same name"),
        ("latent_channels: 40,", "latent_channels: 40, fold: 32,", "resolution 128 is no multiple of 256"),
        ("latent_channels: 40,", "fold: 0,", "fold must be a whole number of at least 1, but is 0"),
        ("latent_channels: 40,", "fold: two,", "fold must be a whole number of at least 1, but is 'two'"),
        ("name: toybox", "name: [toybox", "is not YAML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_place(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told.replace("[", r"\[")):
        load_recipe(changed(tmp_path, old, new), "cpu")


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml cannot be read"):
        load_recipe(tmp_path / "none.yaml", "cpu")
