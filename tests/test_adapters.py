"""Adapters on a pipeline: what their file says of their training, and the coupling that calls then take."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.network import add_lora, save_lora
from tests.helpers.small_pipelines import sd_parts

FILE = "pytorch_lora_weights.safetensors"


def pipeline(**settings: object) -> JeDiPipeline:
    return JeDiPipeline(**sd_parts(in_channels=9), **settings)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters that were trained with each coupling."""
    made = {}
    for coupling, cached in (("cached", 0.9), ("joint", 0.0)):
        recipe = JointRecipe.model_validate(
            {
                "name": "tiny",
                "base": "tiny-base",
                "data": {"sources": [{"kind": "toybox"}]},
                "conditions": {"cached": cached},
                "training": {"steps": 1, "batch": 1},
                "lora": {"rank": 2},
            }
        )
        pipe = pipeline()
        add_lora(pipe.unet, recipe.lora, seed=0)
        made[coupling] = tmp_path_factory.mktemp(coupling)
        save_lora(pipe, recipe, made[coupling])
    return made


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_calls_take_the_coupling_of_the_adapters_that_are_active(folders, caplog) -> None:
    def warned() -> bool:
        return "trained with different couplings; calls that name none take 'joint'" in caplog.text

    pipe = pipeline()
    pipe.load_lora_weights(folders["cached"], adapter_name="first")
    assert pipe.own_coupling == "cached"
    pipe.disable_lora()
    assert pipe.own_coupling == "joint"
    pipe.enable_lora()
    assert pipe.own_coupling == "cached"
    pipe.load_lora_weights(folders["joint"] / FILE, adapter_name="second")
    assert not warned(), "the second one took the first one's place"
    pipe.set_adapters(["first", "second"])
    assert warned()
    assert pipe.own_coupling == "joint", "the last one's"
    pipe.set_adapters(["first"])
    assert pipe.own_coupling == "cached"
    pipe.unload_lora_weights()
    assert pipe.own_coupling == "joint"
    pipe.load_lora_weights(folders["cached"])
    assert pipe.own_coupling == "cached"


def test_a_model_that_adapters_are_fused_into_has_their_coupling(folders, tmp_path) -> None:
    pipe = pipeline()
    pipe.load_lora_weights(folders["cached"])
    pipe.fuse_lora()
    assert pipe.config.coupling == "cached"
    pipe.unfuse_lora()
    assert pipe.config.coupling == "joint"
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path)
    assert JeDiPipeline.from_pretrained(tmp_path).own_coupling == "cached"


def test_adapters_of_another_kind_of_base_are_refused(folders) -> None:
    near = pipeline(distance_slope=2.0)
    with pytest.raises(ModelError, match=r"trained on tiny-base, with distance_slope 0.0, but .* has 2.0"):
        near.load_lora_weights(folders["cached"])
    v = pipeline()
    v.scheduler.register_to_config(prediction_type="v_prediction")
    with pytest.raises(ModelError, match="prediction_type epsilon, but this model has v_prediction"):
        v.load_lora_weights(folders["cached"])
    assert near.own_coupling == v.own_coupling == "joint"
    assert not hasattr(v.unet, "peft_config")


def test_adapters_that_say_nothing_leave_the_coupling_as_it_is(folders, tmp_path) -> None:
    save_file(load_file(folders["cached"] / FILE), tmp_path / FILE)
    pipe = pipeline(coupling="cached")
    pipe.load_lora_weights(tmp_path)
    assert pipe.own_coupling == "cached"
    pipe.unload_lora_weights()
    pipe.load_lora_weights(load_file(folders["joint"] / FILE))
    assert pipe.own_coupling == "cached"


@pytest.mark.parametrize("record", [{"coupling": "both"}, {"couplings": "joint"}])
def test_a_record_that_does_not_fit_is_refused(folders, tmp_path, record) -> None:
    told = {"base": "x", "distance_slope": 0.0, "prediction_type": "epsilon", **record}
    metadata = {"lora_adapter_metadata": json.dumps({f"jedi.{key}": value for key, value in told.items()})}
    save_file(load_file(folders["cached"] / FILE), tmp_path / FILE, metadata)
    with pytest.raises(ModelError, match="coupling"):
        pipeline().load_lora_weights(tmp_path)


def test_pickles_and_damaged_files_are_not_loaded(tmp_path) -> None:
    torch.save({}, tmp_path / "adapters.bin")
    for source, settings in ((tmp_path / "adapters.bin", {}), (tmp_path, {"weight_name": "adapters.bin"})):
        with pytest.raises(UsageError, match="safetensors only"):
            pipeline().load_lora_weights(source, **settings)
    with pytest.raises(ModelError, match="cannot be loaded"):
        pipeline().load_lora_weights(tmp_path)
    (tmp_path / FILE).write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be loaded"):
        pipeline().load_lora_weights(tmp_path)
