"""How noisy the pictures are that a network sees at a step of a scheduler.

Letters: I pictures; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class NoiseLevel(NamedTuple):
    """The network sees alpha * x0 + sigma * n, with alpha^2 + sigma^2 = 1; both are tensors ()."""

    alpha: Tensor
    sigma: Tensor

    def add_noise(self, clean: Tensor, noise: Tensor) -> Tensor:
        """The forward process: clean latents (I, C, H, W) at this level."""
        return self.alpha * clean + self.sigma * noise

    def clean(self, noisy: Tensor, prediction: Tensor, prediction_type: str) -> Tensor:
        """What a network's prediction says about the clean latents of `noisy`, all (I, C, H, W).

        prediction_type: as diffusers' schedulers name it, "epsilon", "v_prediction" or "sample".
        """
        if prediction_type == "sample":
            return prediction
        if prediction_type == "v_prediction":
            return self.alpha * noisy - self.sigma * prediction
        return (noisy - self.sigma * prediction) / self.alpha


def level_of_step(scheduler: Any, timestep: Tensor, like: Tensor) -> NoiseLevel:
    """The level at `timestep`, which is the scheduler's next step, in the dtype and on the device of `like`.

    Schedulers that work in sigma space divide what the network sees by sqrt(sigma^2 + 1), and thereby say
    which sigma they are at. Their `add_noise` does not: in the second half of a step of second order the
    sigma is one between two of its table. The others' `add_noise` gives alpha and sigma.
    """
    scale = float(scheduler.scale_model_input(torch.ones((), dtype=torch.float64), timestep))
    if scale != 1:
        return NoiseLevel(like.new_tensor(scale), like.new_tensor((1 - scale**2) ** 0.5))
    clean, noise = like.new_tensor([1.0, 0.0]), like.new_tensor([0.0, 1.0])
    return NoiseLevel(*scheduler.add_noise(clean, noise, timestep.expand(2)))
