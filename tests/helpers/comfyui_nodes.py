"""Our ComfyUI nodes over a small stand-in for ComfyUI, and workflows run on them."""

import asyncio
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.helpers.comfyui_graphs import Inputs, to_prompt

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "integrations" / "comfyui"
WORKFLOWS = sorted((PACKAGE / "example_workflows").glob("*.json"))
STUB = Path(__file__).parent / "comfyui_stub"
REPLACED = ("comfy", "comfy_api", "folder_paths", "comfyui_jedi")


@contextmanager
def loaded(stub: Path = STUB) -> Iterator[ModuleType]:
    """Yield the package as ComfyUI's loader makes it, over the modules below `stub`."""
    sys.path.insert(0, str(stub))
    try:
        file = PACKAGE / "__init__.py"
        spec = importlib.util.spec_from_file_location("comfyui_jedi", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["comfyui_jedi"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(stub))
        for name in [each for each in sys.modules if each.partition(".")[0] in REPLACED]:
            del sys.modules[name]


def nodes_of(package: ModuleType) -> dict[str, Any]:
    """Return the classes of nodes by id, as ComfyUI asks for them."""

    async def ask() -> list[Any]:
        return await (await package.comfy_entrypoint()).get_node_list()

    return {node.define_schema().node_id: node for node in asyncio.run(ask())}


class LoadImage:
    """As ComfyUI's own: where there is no transparency, the mask is 64 zeros a side."""

    OUTPUTS = 2

    @staticmethod
    def execute(image: str) -> Any:
        picture = Image.open(PACKAGE / "example_workflows" / "input" / image)
        alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
        mask = (
            torch.zeros(1, 64, 64) if alpha is None else 1 - torch.from_numpy(np.array(alpha) / 255.0)[None]
        )
        return torch.from_numpy(np.array(picture.convert("RGB")) / 255.0).float()[None], mask


class InvertMask:
    @staticmethod
    def execute(mask: torch.Tensor) -> Any:
        return (1 - mask,)


OWN = {"LoadImage": LoadImage, "InvertMask": InvertMask}
"""ComfyUI's own nodes that the workflows have before ours; those after ours are left out."""
OWN_INPUTS: dict[str, Inputs] = {
    "LoadImage": {"image": ("COMBO", {"image_upload": True})},
    "InvertMask": {"mask": ("MASK", {})},
    "PreviewAny": {"source": ("*", {})},
    "PreviewImage": {"images": ("IMAGE", {})},
    "SaveImage": {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {})},
}


def inputs_of(node: Any) -> Inputs:
    """Return the inputs of a node, required ones first, as ComfyUI lists them."""
    inputs = sorted(node.define_schema().inputs, key=lambda each: each.optional)
    return {each.id: (each.io_type, each.options) for each in inputs}


def run(workflow: Mapping[str, Any], nodes: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the results of our nodes in a workflow, by class; changes: inputs that have other values."""
    prompt = to_prompt(
        workflow, lambda kind: OWN_INPUTS[kind] if kind in OWN_INPUTS else inputs_of(nodes[kind])
    )
    results: dict[str, Any] = {}
    made: dict[str, Any] = {}

    def result(number: str) -> Any:
        if number not in results:
            node = prompt[number]
            values = {
                name: result(value[0])[value[1]] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            }
            kind = node["class_type"]
            values |= {name: value for name, value in changes.items() if name in values}
            done = (OWN.get(kind) or nodes[kind]).execute(**values)
            results[number] = done if isinstance(done, tuple) else done.args
            made[kind] = done
        return results[number]

    for number, node in prompt.items():
        if node["class_type"] in nodes:
            result(number)
    return made


def workflow(name: str) -> dict[str, Any]:
    """Return an example workflow by its name."""
    found: dict[str, Any] = json.loads((PACKAGE / "example_workflows" / f"{name}.json").read_text())
    return found
