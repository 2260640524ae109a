"""The ComfyUI package over a small stand-in for ComfyUI; test_real_comfyui.py runs it in the real one."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion import models
from jedi_diffusion.calls import Call, run_call
from jedi_diffusion.errors import UsageError
from jedi_diffusion.options import Sampling
from jedi_diffusion.references import Reference
from tests.helpers import comfyui_nodes as comfyui
from tools import comfyui_workflows

FEW = {"steps": 2}


@pytest.fixture
def nodes() -> Iterator[dict[str, Any]]:
    with comfyui.loaded() as package:
        yield comfyui.nodes_of(package)


def photo(name: str = "jedi_robot.png") -> Image.Image:
    return Image.open(comfyui.PACKAGE / "example_workflows" / "input" / name)


@pytest.mark.parametrize(
    "make",
    [
        comfyui_workflows.new_scenes,
        comfyui_workflows.masked_references,
        comfyui_workflows.attention_and_score,
    ],
)
def test_workflows_are_those_of_the_tool_and_run(nodes: dict[str, Any], make: Any) -> None:
    saved = comfyui.workflow(make.__name__)
    assert saved == comfyui_workflows.workflow(make())
    made = comfyui.run(saved, nodes, **FEW)
    assert {each["type"] for each in saved["nodes"] if each["type"].startswith("Jedi")} == {
        kind for kind in made if kind.startswith("Jedi")
    }
    assert (comfyui.PACKAGE / "example_workflows" / f"{make.__name__}.jpg").is_file()


def test_generated_pictures_are_those_of_the_pipeline(nodes: dict[str, Any]) -> None:
    made = comfyui.run(comfyui.workflow("new_scenes"), nodes, prompts="a robot\n\na toy", **FEW)
    (images,) = made["JediGenerate"].args
    assert (images.shape, images.dtype) == ((2, 128, 128, 3), torch.float32)
    pipe = models.load_model("toybox", torch.device("cpu"), torch.float32)
    how = Sampling(steps=2).at(128, 128)
    call = Call(["a robot", "a toy"], [1, 1], [Reference(photo(), "a robot")], (), how)
    expected = np.stack([np.asarray(each) for each in run_call(pipe, call, lambda *_: None)])
    assert np.array_equal((images.numpy() * 255).round(), expected)


def test_progress_counts_all_steps_and_previews_come(nodes: dict[str, Any]) -> None:
    from comfy import model_management, utils

    comfyui.run(comfyui.workflow("new_scenes"), nodes, steps=3, prompts="a robot\na toy", at_once=1)
    assert [(value, total) for value, total, _ in utils.shown] == [(n, 6) for n in range(1, 7)]
    previews = [preview for *_, preview in utils.shown if preview is not None]
    assert [(kind, picture.size, side) for kind, picture, side in previews] == [("JPEG", (128, 128), 512)] * 2
    assert {id(each) for each in model_management.loaded} == {id(model_management.loaded[0])}


def test_an_interrupt_ends_the_run(nodes: dict[str, Any]) -> None:
    from comfy import model_management, utils

    model_management.interrupt_current_processing()
    with pytest.raises(model_management.InterruptProcessingException):
        comfyui.run(comfyui.workflow("new_scenes"), nodes, steps=50)
    assert len(utils.shown) <= 1


def test_references_keep_their_masks_and_chain(nodes: dict[str, Any]) -> None:
    image = torch.rand(2, 8, 12, 3)
    mask = torch.zeros(2, 4, 6)
    mask[0, :, :3] = 1
    (first,) = nodes["JediReference"].execute(image, "a robot", 1.0, mask).args
    (both,) = nodes["JediReference"].execute(image[:1], "", 2.0, references=first).args
    assert [(each.caption, each.strength, each.mask is None) for each in both] == [
        ("a robot", 1.0, False),
        ("a robot", 1.0, True),  # empty, as Load Image gives it where nothing is transparent
        ("", 2.0, True),
    ]
    drawn = np.asarray(first[0].mask)
    assert drawn.shape == (8, 12)
    assert (drawn[:, :5] == 255).all()
    assert (drawn[:, 7:] == 0).all()
    assert np.array_equal(np.asarray(first[1].picture), (image[1].numpy() * 255).round().astype(np.uint8))
    with pytest.raises(UsageError, match="3 masks for 2 images"):
        nodes["JediReference"].execute(image, "", 1.0, torch.ones(3, 4, 6))


def test_every_setting_has_one_input_and_its_default_is_the_models(nodes: dict[str, Any]) -> None:
    from comfyui_jedi.settings import MAIN, OTHERS, sampling_of

    found = comfyui.inputs_of(nodes["JediSettings"])
    main = {name: each for name, each in comfyui.inputs_of(nodes["JediGenerate"]).items() if name in MAIN}
    assert {*found, *main} == Sampling.model_fields.keys()
    assert not found.keys() & main.keys()
    values = {name: options["default"] for name, (_, options) in {**found, **main}.items()}
    own = Sampling(steps=4, guidance=1.5, guidance_mode="text_first", null_set="single")
    assert sampling_of(own, values) == own
    changed = sampling_of(
        own, values | {"steps": 9, "guidance_mode": "joint", "temperature": 0.0, "auto_mask": True}
    )
    assert (changed.steps, changed.guidance_mode, changed.temperature, changed.auto_mask) == (
        9,
        "joint",
        0.0,
        True,
    )
    assert tuple(found) == OTHERS
    with pytest.raises(UsageError, match="guidance_start"):
        sampling_of(own, values | {"guidance_start": 0.8, "guidance_stop": 0.2})


def test_the_score_is_1_for_a_copy(nodes: dict[str, Any]) -> None:
    (references,) = (
        nodes["JediReference"].execute(torch.from_numpy(np.asarray(photo()) / 255.0)[None], "", 1.0).args
    )
    done = nodes["JediScore"].execute(
        torch.from_numpy(np.asarray(photo()) / 255.0)[None], references, "toybox (bundled)", ""
    )
    assert done.args[0] == pytest.approx(1, abs=1e-4)
    assert done.args[1] == "1: identity 1.000, distance 0.000 from the nearest reference, a copy"
    assert done.ui.as_dict() == {"text": (done.args[1],)}


def test_models_are_found_in_comfyuis_folder_and_faults_are_said_before_a_run(
    nodes: dict[str, Any], tmp_path: Any
) -> None:
    import folder_paths

    (tmp_path / "team" / "klein").mkdir(parents=True)
    (tmp_path / "team" / "klein" / "model_index.json").write_text("{}")
    folder_paths.FOLDERS["diffusers"] = [str(tmp_path)]
    load = nodes["JediLoadModel"]
    assert comfyui.inputs_of(load)["model"][1]["options"] == ["toybox (bundled)", "team/klein"]
    assert load.validate_inputs("team/klein", "") is True
    assert "no model 'elsewhere'" in load.validate_inputs("toybox (bundled)", "elsewhere")


def test_the_package_loads_without_a_model_or_diffusers() -> None:
    code = (
        "import sys; sys.path[:0] = ['.']\n"
        "from tests.helpers.comfyui_nodes import loaded, nodes_of\n"
        "with loaded() as package: nodes_of(package)\n"
        "assert not {'diffusers', 'transformers', 'fastapi', 'gradio'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=comfyui.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_says_what_the_registry_asks_for(nodes: dict[str, Any]) -> None:
    read = tomllib.loads((comfyui.PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))
    own = tomllib.loads((comfyui.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert read["project"]["dependencies"] == [own["name"]]
    assert (comfyui.PACKAGE / "requirements.txt").read_text().split() == read["project"]["dependencies"]
    assert read["project"]["requires-python"] == own["requires-python"]
    assert {"PublisherId", "DisplayName", "includes"} <= read["tool"]["comfy"].keys()
    readme = (comfyui.PACKAGE / "README.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| \*\*(.+?)\*\*", readme, re.MULTILINE))
    assert described == {node.define_schema().display_name.removesuffix(" (JeDi)") for node in nodes.values()}
