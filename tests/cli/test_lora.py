"""Adapters that a command is given: on the network with their scales, in records, refused in a sentence."""

import json
from pathlib import Path

import pytest
import torch

from jedi_diffusion import models
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.pictures import read_parameters
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.network import add_lora, save_lora

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def adapters(joint_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders as `jedi train` writes them, whose adapters do something."""
    made = []
    for number in range(2):
        sections = {"data": {"sources": [{"kind": "toybox"}]}, "training": {"steps": 1, "batch": 1}}
        raw = {"name": "tiny", "base": str(joint_model), **sections, "lora": {"rank": 2}}
        recipe = JointRecipe.model_validate(raw | {"conditions": {"cached": 0.0}})
        pipe = models.open_base(str(joint_model))
        add_lora(pipe.network, recipe.lora, seed=number)
        drawn = torch.Generator().manual_seed(number)
        for name, weight in pipe.network.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.5, generator=drawn)
        made.append(tmp_path_factory.mktemp("lora") / f"lora{number}")
        save_lora(pipe, recipe, made[-1])
    return made


def deltas(pipe: object, plain: object) -> dict[str, torch.Tensor]:
    """What fused adapters add to each weight."""
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    before = plain.network.state_dict()
    return {name: each - before[name] for name, each in pipe.network.state_dict().items()}


def test_scales_count_and_several_add_up(joint_model, adapters) -> None:
    plain = models.load_model(str(joint_model), CPU, torch.float32)
    first, second = map(str, adapters)

    def added(*lora: str) -> dict[str, torch.Tensor]:
        return deltas(models.load_model(str(joint_model), CPU, torch.float32, lora), plain)

    one, other, both = added(first), added(f"{second}:1"), added(f"{first}:0.5", f"{second}:-2")
    assert sum(each.abs().sum() > 0 for each in one.values()) > 5
    for name in one:
        torch.testing.assert_close(both[name], 0.5 * one[name] - 2 * other[name], rtol=1e-4, atol=1e-5)


def test_a_fingerprint_knows_scales(joint_model, adapters) -> None:
    found = {
        models.fingerprint(models.load_model(str(joint_model), CPU, torch.float32, lora))
        for lora in ((), (f"{adapters[0]}",), (f"{adapters[0]}:1.0",), (f"{adapters[0]}:0.9",))
    }
    assert len(found) == 3


def test_adapters_are_recorded_and_a_repeat_has_them(
    jedi, photo, joint_model, adapters, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(adapters[0].parent)
    words = ("--model", joint_model, "--reference", photo, "--prompt", "a toy", "--steps", 2, "--size", 32)
    assert jedi("generate", *words, "--out", tmp_path / "plain").status == 0
    done = jedi("generate", *words, "--lora", "lora0:0.5", "--out", tmp_path / "made")
    assert done.status == 0, done.err
    monkeypatch.chdir(tmp_path)
    settings = json.loads((tmp_path / "made" / "settings.json").read_text())
    assert settings["options"]["lora"] == [f"{adapters[0]}:0.5"]
    assert "lora" not in json.loads((tmp_path / "plain" / "settings.json").read_text())["options"]
    again = jedi("generate", "--from", tmp_path / "made" / "settings.json", "--out", tmp_path / "again")
    assert again.status == 0, again.err
    first, repeated, plain = (
        next((tmp_path / name).glob("a-toy*.png")) for name in ("made", "again", "plain")
    )
    assert first.read_bytes() != plain.read_bytes()
    assert "differ" not in again.err
    told = read_parameters(first)
    assert told["options"]["lora"] == ["lora0:0.5"]
    assert str(adapters[0].parent) not in json.dumps(told)
    assert read_parameters(repeated)["options"]["lora"] == ["lora0:0.5"]


def test_what_is_no_adapter_is_refused(jedi, photo, joint_model, tmp_path, adapters) -> None:
    with pytest.raises(UsageError, match="behind its last colon must be a number"):
        models.with_scale(f"{adapters[0]}:much")
    with pytest.raises(UsageError, match="must be a number"):
        models.with_scale(f"{adapters[0]}:nan")
    with pytest.raises(ModelError, match="There are no adapters nowhere"):
        models.check_model_name("toybox", ["nowhere:0.5"])
    (tmp_path / "a:b").mkdir()
    assert models.with_scale(str(tmp_path / "a:b")) == (str(tmp_path / "a:b"), 1.0)
    assert models.placed([f"{adapters[0]}:2"]) == [f"{adapters[0]}:2"]
    words = ("--model", joint_model, "--reference", photo, "--prompt", "a toy", "--lora", tmp_path)
    done = jedi("generate", *words, "--out", tmp_path / "x")
    assert done.status == 1
    assert done.err.count("\n") <= 3
