"""Steps whose gradient is not finite: the weights stay as they are, and too many in a row end the run."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from jedi_diffusion.errors import JeDiError

logger = logging.getLogger(__name__)


class Skipping:
    """Judges gradients before the optimizer acts on them; `patience` bad ones in a row end the run."""

    def __init__(self, patience: int) -> None:
        self.patience, self.in_a_row = patience, 0

    def sound(self, norm: Tensor, step: int) -> bool:
        """Return whether a gradient of this norm is finite; if not, a warning names the step,
        counted from 1.
        """
        finite = bool(torch.isfinite(norm))
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if not finite and self.patience > 1:
            logger.warning("Step %d is skipped: the norm of its gradient is %s.", step, float(norm))
        return finite

    @property
    def too_many(self) -> bool:
        return self.in_a_row >= self.patience

    def error(self, step: int, key: str, folder: Path | None) -> JeDiError:
        """Return what to raise then. key: the learning rate's name; folder: of a checkpoint of the step."""
        several = f"The gradients of the last {self.patience} steps, up to step {step}, are not finite"
        found = several if self.patience > 1 else f"The gradient of step {step} is not finite"
        if folder is None:
            return JeDiError(f"{found}: lower {key}.")
        return JeDiError(
            f"{found}: lower {key} and start again in another folder. No such step has changed the weights: "
            f"the newest checkpoint in {folder} is sound."
        )


def finite_or_none(value: Tensor) -> float | None:
    """Return a number that JSON knows."""
    return float(value) if bool(torch.isfinite(value)) else None
