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
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from jedi_diffusion.errors import ModelError, OutputError

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
        if keep_every is None or int(old.name.removeprefix(PREFIX)) % keep_every:
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
    """Complete checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def load_state(folder: Path, device: torch.device | str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint's tensors and facts, or None where there is none. Raises ModelError on damage."""
    found = checkpoints(folder)
    if not found:
        return None
    try:
        tensors = load_file(found[-1] / "state.safetensors", device=str(device))
        return tensors, json.loads((found[-1] / "state.json").read_text())
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"The checkpoint {found[-1]} is damaged ({error}); remove it to start the stage again."
        ) from error


def sync(path: Path) -> None:
    """Force a file or a folder entry to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
