"""Training state on disk: safetensors and JSON only, written whole or not at all.

A checkpoint is a folder `step-NNNNNNNN`. It is written under another name, synced, and renamed; older ones
go only after that. So whatever kills the process, the newest folder of that name is complete.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from jedi_diffusion.errors import ModelError, OutputError
from jedi_diffusion.weights import check_weights_file, read_json

PREFIX = "step-"
PARTIAL = ".partial-"


def save_state(
    folder: Path,
    step: int,
    tensors: dict[str, Tensor],
    facts: dict[str, Any],
    keep_last: int = 1,
    keep_every: int | None = None,
) -> Path:
    """Write a checkpoint of `tensors` and JSON `facts`, then remove old ones. Raises OutputError.

    The `keep_last` newest stay, and those whose step is a multiple of `keep_every`. A step that is there
    already is left as it is: to replace it would mean a moment without it.
    """
    final, partial = folder / f"{PREFIX}{step:08d}", folder / f"{PARTIAL}{os.getpid()}"
    if final.exists():
        return final
    try:
        for left in folder.glob(f"{PARTIAL}*"):  # of processes that were killed
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        write_tensors(partial / "state.safetensors", tensors)
        (partial / "state.json").write_text(json.dumps({**facts, "step": step}, indent=1))
        sync(partial / "state.json")
        partial.rename(final)
        sync(folder)
    except (OSError, OutputError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"The checkpoint {final} cannot be written: {reason.rstrip('.')}.") from error
    for old in checkpoints(folder)[:-keep_last]:
        if keep_every is None or step_of(old) % keep_every:
            shutil.rmtree(old)
    return final


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file whole or not at all. Raises OutputError with the path and the reason."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, partial)
        sync(partial)
        partial.rename(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {error}.") from error


def checkpoints(folder: Path) -> list[Path]:
    """Return complete checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def load_state(folder: Path, device: torch.device | str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the newest checkpoint's tensors and facts, or None where there is none.

    Raises as `read_state` does.
    """
    found = checkpoints(folder)
    return read_state(found[-1], device) if found else None


def read_state(
    checkpoint: Path, device: torch.device | str, prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's facts, and its tensors whose names begin with `prefix`, on a device.

    Raises ModelError: only what is not whole is called damaged.
    """
    path = checkpoint / "state.safetensors"
    try:
        facts = read_json(checkpoint / "state.json")
        check_weights_file(path)
    except ModelError as error:
        raise ModelError(
            f"The checkpoint {checkpoint} is damaged: {error} Remove it to go on from the one before, or "
            "from the start if there is none."
        ) from error
    kind = torch.device(device)
    place = "cpu" if kind.type == "cpu" else str(kind)  # several processes call theirs cpu:0, cpu:1
    try:
        with safe_open(path, framework="pt", device=place) as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a mapping)
            return {name: file.get_tensor(name) for name in names}, facts
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The checkpoint {checkpoint} cannot be read: {str(error).rstrip('.')}.") from error


def sync(path: Path) -> None:
    """Force a file or a folder entry to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
