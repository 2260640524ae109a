"""Run workflows with our nodes in a checkout of ComfyUI, through its own loader, checks and executor.

    COMFYUI=../ComfyUI python tests/helpers/comfyui_executor.py OUT WORKFLOW.json [NODE.INPUT=VALUE ...]

Prints what happened as JSON: the messages that its page would get, and what the nodes show. Pictures are in
OUT/output and OUT/temp. `interrupt=STEP` in place of a value presses Cancel after that step. torchvision and
torchaudio, which some of ComfyUI's models need and our nodes do not, may be missing.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "integrations" / "comfyui"


def without(name: str) -> None:
    """Put something in the place of a package that is not installed, below which any name is found."""
    for each in (
        name,
        *(f"{name}.{part}" for part in ("transforms", "transforms.functional", "ops", "models")),
    ):
        module = types.ModuleType(each)
        module.__path__, module.__getattr__ = [], lambda _: MagicMock()  # type: ignore[attr-defined]
        sys.modules[each] = module


def start(out: Path) -> None:
    """Make ComfyUI's modules importable, with OUT as its folder for pictures."""
    import diffusers  # noqa: F401  # what looks for torchvision does so before something stands in its place
    from transformers.utils import is_torchvision_available

    is_torchvision_available()
    for name in ("torchvision", "torchaudio"):
        if importlib.util.find_spec(name) is None:
            without(name)
    sys.path[:0] = [str(ROOT), os.environ["COMFYUI"]]  # both have a package `tests`
    shutil.copytree(PACKAGE / "example_workflows" / "input", out / "input", dirs_exist_ok=True)
    folders = [f"--{name}-directory={out / name}" for name in ("input", "output")]
    sys.argv = ["main.py", "--cpu", *folders, f"--temp-directory={out}"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import folder_paths

    folder_paths.set_input_directory(str(out / "input"))
    folder_paths.set_output_directory(str(out / "output"))
    folder_paths.set_temp_directory(str(out / "temp"))


class Page:
    """Takes down what a page in the browser would get; presses Cancel after a step."""

    client_id, last_node_id, last_prompt_id = "page", None, None
    sockets_metadata = {"page": {"feature_flags": {"supports_preview_metadata": True}}}  # noqa: RUF012

    def __init__(self, interrupt: int | None) -> None:
        self.interrupt, self.messages, self.previews = interrupt, [], []

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        import nodes

        if isinstance(event, str):
            self.messages.append((event, data))
        else:
            self.previews.append(data[0][1].size)
        rows = data.get("nodes", {}).values() if event == "progress_state" else ()
        if self.interrupt is not None and any(each["value"] == self.interrupt < each["max"] for each in rows):
            nodes.interrupt_processing()

    def queue_updated(self) -> None:
        pass


def show_progress() -> None:
    """Do what ComfyUI's main.py does, which starts a server when it is imported."""
    import comfy.utils
    from comfy_execution.progress import get_progress_state
    from comfy_execution.utils import get_executing_context

    def hook(value: float, total: float, preview: Any, prompt_id: Any = None, node_id: Any = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        get_progress_state().update_progress(get_executing_context().node_id, value, total, preview)

    comfy.utils.set_progress_bar_global_hook(hook)


async def load() -> None:
    """Load our nodes, and those of ComfyUI's own that the workflows have, as its server does."""
    import nodes

    assert await nodes.load_custom_node(str(PACKAGE))
    for extra in ("nodes_mask", "nodes_preview_any"):
        assert await nodes.load_custom_node(str(Path(os.environ["COMFYUI"]) / "comfy_extras" / f"{extra}.py"))


def inputs_of(kind: str) -> dict[str, Any]:
    """Return the inputs of a class of nodes, required ones first."""
    import nodes

    found = nodes.NODE_CLASS_MAPPINGS[kind].INPUT_TYPES()
    rows = {**found.get("required", {}), **found.get("optional", {})}
    return {name: (row[0], row[1] if len(row) > 1 else {}) for name, row in rows.items()}


async def execute(workflow: dict[str, Any], changes: list[str], interrupt: int | None) -> dict[str, Any]:
    """Return what came of a workflow."""
    import execution

    from tests.helpers.comfyui_graphs import to_prompt

    await load()
    show_progress()
    prompt = to_prompt(workflow, inputs_of)
    for change in changes:
        place, _, value = change.partition("=")
        node, _, name = place.partition(".")
        prompt[node]["inputs"][name] = json.loads(value)
    is_valid, error, outputs, faults = await execution.validate_prompt("prompt", prompt, None)
    if not is_valid:
        return {"valid": False, "error": error, "faults": faults}
    page = Page(interrupt)
    executor = execution.PromptExecutor(page)
    await executor.execute_async(prompt, "prompt", {"client_id": "page"}, outputs)
    kept = [message for message in page.messages if message[0] != "progress_state"]
    steps = [
        [each["value"], each["max"]]
        for event, data in page.messages
        if event == "progress_state"
        for each in data["nodes"].values()
        if each["max"] > 1
    ]
    return {
        "valid": True,
        "messages": kept,
        "previews": page.previews,
        "steps": steps,
        **executor.history_result,
    }


def main() -> None:
    """Run one workflow, and print what came of it."""
    out, file, *changes = sys.argv[1:]
    interrupt = next((int(each.partition("=")[2]) for each in changes if each.startswith("interrupt=")), None)
    start(Path(out).resolve())
    workflow = json.loads(Path(file).read_text(encoding="utf-8"))
    values = [each for each in changes if not each.startswith("interrupt=")]
    print(json.dumps(asyncio.run(execute(workflow, values, interrupt)), default=str))


if __name__ == "__main__":
    main()
