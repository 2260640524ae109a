"""AdamW as torch has it, or with moments in 8 bits by bitsandbytes, and what of it a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_diffusion.trainer.settings import Settings

TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}
"""What values 8 bits stand for: keys of the state that all parameters share, and bitsandbytes' names."""


def make_optimizer(parameters: Iterable[Tensor], settings: Settings) -> torch.optim.Optimizer:
    """Return AdamW over parameters. Raises UsageError if bitsandbytes is needed and not installed."""
    given: dict[str, Any] = {
        "lr": settings.schedule.peak,
        "betas": settings.betas,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "adamw":
        fused = settings.fused or None  # False would mean a kernel for each weight
        return torch.optim.AdamW([*parameters], fused=fused, **given)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UsageError(
            "training.optimizer adamw8bit needs bitsandbytes, which is not installed: pip install "
            "'jedi-diffusion[train-8bit]'."
        ) from error
    made: torch.optim.Optimizer = AdamW8bit([*parameters], **given)
    return made


def stored_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """Return what an optimizer knows of a parameter, as a checkpoint holds it; nothing at first."""
    state: Mapping[str, Any] = optimizer.state.get(parameter, {})
    return {key: torch.as_tensor(value) for key, value in state.items() if key not in TABLES}


def restored_state(optimizer: Any, stored: Mapping[str, Tensor], device: torch.device) -> dict[str, Any]:
    """Return the state of a parameter out of what a checkpoint holds of it, its tensors where they belong."""
    if "state1" not in stored:
        return dict(stored)
    state: dict[str, Any] = {key: value.to(device) for key, value in stored.items()}
    state["step"] = int(stored["step"])
    if stored["state1"].dtype == torch.uint8:
        optimizer.fill_qmap()
        tables: Mapping[str, Tensor] = optimizer.name2qmap
        state |= {key: tables[name].to(device) for key, name in TABLES.items()}
    return state
