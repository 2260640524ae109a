"""Our nodes in a real ComfyUI, and the stand-in of the other tests held against it.

    COMFYUI=../ComfyUI COMFYUI_PYTHON=../ComfyUI/venv/bin/python .venv/bin/pytest tests/integrations -m slow

COMFYUI: a checkout; COMFYUI_PYTHON: what has its requirements and ours, by default the tests' own Python.
"""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers import comfyui_executor
from tests.helpers.comfyui_nodes import PACKAGE, ROOT, STUB, WORKFLOWS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("COMFYUI" not in os.environ, reason="COMFYUI names no checkout of ComfyUI"),
]
SURFACE = """
import json, sys
sys.path[:0] = [{root!r}, {path!r}]
from tests.helpers import comfyui_executor
if {is_real}:
    comfyui_executor.start(__import__("pathlib").Path({out!r}))
from tests.integrations.test_real_comfyui import surface
print(json.dumps(surface()))
"""


def surface() -> dict[str, list[str]]:
    """What the stand-in has, by name: arguments of functions and of classes; run in either world."""
    import folder_paths
    from comfy import model_management, model_patcher, utils
    from comfy_api.latest import ComfyExtension, io, ui

    types = ("Image", "Mask", "Boolean", "String", "Int", "Float", "Combo")
    called: dict[str, Any] = {
        **{f"io.{name}.Input": getattr(io, name).Input.__init__ for name in types},
        **{f"io.{name}.Output": getattr(io, name).Output.__init__ for name in types},
        "io.Custom": io.Custom,
        "io.Custom.Input": io.Custom("ANY").Input.__init__,
        "io.Custom.Output": io.Custom("ANY").Output.__init__,
        "io.Schema": io.Schema.__init__,
        "io.NodeOutput": io.NodeOutput.__init__,
        "io.ComfyNode.execute": io.ComfyNode.execute,
        "ui.PreviewText": ui.PreviewText.__init__,
        "ComfyExtension.get_node_list": ComfyExtension.get_node_list,
        "folder_paths.get_folder_paths": folder_paths.get_folder_paths,
        "ModelPatcher": model_patcher.ModelPatcher.__init__,
        "ProgressBar": utils.ProgressBar.__init__,
        "ProgressBar.update_absolute": utils.ProgressBar.update_absolute,
    }
    for name in (
        "get_torch_device",
        "unet_offload_device",
        "load_models_gpu",
        "interrupt_current_processing",
        "throw_exception_if_processing_interrupted",
    ):
        called[f"model_management.{name}"] = getattr(model_management, name)
    return {
        name: [
            *inspect.signature(each).parameters,
            *getattr(getattr(io, name.split(".")[1], None), "TAKES", ()),
        ]
        if name.endswith(".Input")
        else list(inspect.signature(each).parameters)
        for name, each in called.items()
    }


def in_comfyui(*words: str | Path) -> str:
    """Return what a program says in ComfyUI's Python."""
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    settings = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([python, *words], cwd=ROOT, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def run(tmp_path: Path, name: str, *changes: str) -> dict[str, Any]:
    """Return what came of an example workflow in ComfyUI's executor."""
    file = next(each for each in WORKFLOWS if each.stem == name)
    done: dict[str, Any] = json.loads(in_comfyui(comfyui_executor.__file__, tmp_path, file, *changes))
    return done


def test_the_stand_in_takes_nothing_that_comfyui_does_not(tmp_path: Path) -> None:
    both = []
    for path, is_real in ((str(STUB), False), (os.environ["COMFYUI"], True)):
        code = SURFACE.format(root=str(ROOT), path=path, is_real=is_real, out=str(tmp_path))
        both.append(json.loads(in_comfyui("-c", code)))
    ours, theirs = both
    assert ours.keys() == theirs.keys()
    free = {"options", "kwargs"}  # what the stand-in's inputs take is listed beside
    assert not {f"{name}: {each}" for name in ours for each in set(ours[name]) - set(theirs[name]) - free}


@pytest.mark.parametrize("name", [each.stem for each in WORKFLOWS])
def test_workflows_run_in_comfyuis_executor(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, name)
    assert done["valid"], done
    assert done["messages"][-1][0] == "execution_success", done["messages"][-1]
    shown = [each for output in done["outputs"].values() for each in output.get("images", ())]
    files = [tmp_path / each["type"] / each["filename"] for each in shown]
    assert len(files) == {"attention_and_score": 1}.get(name, 4)
    assert all(Image.open(file).getextrema()[0][1] > 100 for file in files)
    assert done["steps"][-1] == [25, 25]
    assert bool(done["previews"]) == (name != "attention_and_score")


def test_cancel_ends_a_run(tmp_path: Path) -> None:
    done = run(tmp_path, "new_scenes", "4.steps=200", "interrupt=3")
    assert done["messages"][-1][0] == "execution_interrupted"
    assert max(value for value, _ in done["steps"]) <= 5


def test_faults_are_shown_at_their_node(tmp_path: Path) -> None:
    unknown = run(tmp_path, "new_scenes", '1.folder="elsewhere"')
    assert "There is no model 'elsewhere'" in json.dumps(unknown["faults"]["1"])
    empty = run(tmp_path, "new_scenes", '4.prompts=""')["messages"][-1]
    assert (empty[0], empty[1]["node_id"]) == ("execution_error", "4")
    assert empty[1]["exception_message"].startswith("There is no prompt: write what to show, one a line.")


def test_the_registrys_fields_are_read(tmp_path: Path) -> None:
    if importlib.util.find_spec("pydantic_settings") is None and "COMFYUI_PYTHON" not in os.environ:
        pytest.skip("ComfyUI reads pyproject.toml with pydantic-settings")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from comfy_config.config_parser import extract_node_configuration as read\n"
        "print(read(sys.argv[2]).model_dump_json())"
    )
    said = json.loads(in_comfyui("-c", code, os.environ["COMFYUI"], PACKAGE))
    assert said["project"]["name"] == "comfyui-jedi"
    assert said["project"]["supported_os"] == ["OS Independent"]
    assert said["tool_comfy"]["display_name"] == "JeDi"
