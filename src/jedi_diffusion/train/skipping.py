"""Steps whose gradient is not finite: the weights stay as they are, and too many in a row end the run."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from jedi_diffusion.errors import JeDiError

logger = logging.getLogger(__name__)

LONGEST = 25
"""Steps in a row that may be skipped: float16's loss scale may have to be halved 16 times at the start."""


class Skipping:
    """Judges each step's gradient before the optimizer acts on it, and counts those that it must not see."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def sound(self, norm: Tensor, step: int) -> bool:
        """Whether a gradient of this norm is finite; if not, a warning names the step, counted from 1."""
        finite = bool(torch.isfinite(norm))
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if not finite:
            logger.warning("Step %d is skipped: the norm of its gradient is %s.", step, float(norm))
        return finite

    @property
    def too_many(self) -> bool:
        return self.in_a_row >= LONGEST

    def error(self, step: int, key: str, state: Path) -> JeDiError:
        """What to raise then, once a checkpoint of the step is written. key: the recipe's learning rate."""
        return JeDiError(
            f"The gradients of the last {LONGEST} steps, up to step {step}, are not finite: lower {key} and "
            f"start again in another folder. No such step has changed the weights: the newest checkpoint in "
            f"{state} is sound."
        )


def finite_or_none(value: Tensor) -> float | None:
    """A number that JSON knows."""
    return float(value) if bool(torch.isfinite(value)) else None
