"""The replacement trick: the known pictures of a set follow the forward process while the others are sampled.

Section 3.3 of the paper. Letters: R references; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def renoise(scheduler: Any, references: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """References at the noise level of `timestep`, (R, C, H, W), in the scheduler's own scale.

    references: clean latents; noise: the one noise that a reference keeps through all steps; timestep (): one
    of `scheduler.timesteps`. The result is sqrt(abar_t) * x0 + sqrt(1 - abar_t) * n, and x0 + sigma_t * n for
    schedulers that work in sigma space.
    """
    if not len(references):
        return references
    return scheduler.add_noise(references, noise, timestep.expand(len(references)))
