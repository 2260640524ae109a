"""The training loss, equation 2 of the paper.

Letters: S sets in a batch; I pictures in a batch; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jedi_diffusion.diffusion.denoiser import Coupling, Denoiser
from jedi_diffusion.errors import UsageError
from jedi_diffusion.sets import SetBatch


@dataclass(frozen=True)
class NoiseDraw:
    """One draw of noise for a batch, and what the network should answer.

    timesteps (I,) int64, in 0..T-1; noisy, target (I, C, H, W) float32; weight float32, broadcasts to those.
    """

    timesteps: Tensor
    noisy: Tensor
    target: Tensor
    weight: Tensor


@dataclass(frozen=True)
class JointLoss:
    """Equation 2: noise every set to one level of its own, predict, mean of the weighted squared error.

    alphas_cumprod (T,): the noise schedule; prediction_type: "epsilon" or "v_prediction".
    reference_weight: weight of the references, 1 in the paper's loss (used by coupling "joint" only).
    reference_timestep: the timestep at which coupling "cached" reads its clean references.
    """

    alphas_cumprod: Tensor
    prediction_type: str = "epsilon"
    reference_weight: float = 1.0
    reference_timestep: int = 0

    def __post_init__(self) -> None:
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise UsageError(
                f"The loss knows prediction types 'epsilon' and 'v_prediction', not {self.prediction_type!r}."
            )
        if not 0 <= self.reference_weight < float("inf"):
            raise UsageError(f"reference_weight must be 0 or more, but is {self.reference_weight}.")

    @classmethod
    def from_scheduler(cls, scheduler: Any, reference_weight: float = 1.0) -> JointLoss:
        """The loss with the schedule and the prediction type of a diffusers scheduler."""
        return cls(
            scheduler.alphas_cumprod.clone().float(), scheduler.config.prediction_type, reference_weight
        )

    def __call__(
        self, denoiser: Denoiser, batch: SetBatch, generator: torch.Generator, coupling: Coupling = "joint"
    ) -> Tensor:
        """A float32 scalar: sum(weight * error^2) / sum(weight), zero where every weight is zero."""
        draw = self.draw(batch, generator, coupling)
        prediction = denoiser(draw.noisy, draw.timesteps, batch, coupling=coupling)
        return weighted_mean((prediction.float() - draw.target) ** 2, draw.weight)

    def draw(self, batch: SetBatch, generator: torch.Generator, coupling: Coupling = "joint") -> NoiseDraw:
        """One timestep per set (uniform over 0..T-1), one noise per picture, from the generator alone.

        Coupling "cached": references are clean, at `reference_timestep`, and carry no loss.
        """
        x0, is_reference = batch.latents.float(), batch.is_reference
        timesteps = self._one_timestep_per_set(batch, generator)
        noise = torch.randn(x0.shape, generator=generator, device=generator.device).to(x0.device)
        alpha, sigma = self._levels(timesteps)
        noisy = alpha * x0 + sigma * noise
        target = noise if self.prediction_type == "epsilon" else alpha * noise - sigma * x0
        reference_weight = self.reference_weight
        if coupling == "cached":
            noisy = torch.where(is_reference.view(-1, 1, 1, 1), x0, noisy)
            timesteps = timesteps.masked_fill(is_reference, self.reference_timestep)
            reference_weight = 0.0
        weight = torch.where(is_reference, reference_weight, 1.0).view(-1, 1, 1, 1)
        if batch.weight is not None:
            weight = weight * batch.weight.float()
        return NoiseDraw(timesteps, noisy, target, weight)

    def _one_timestep_per_set(self, batch: SetBatch, generator: torch.Generator) -> Tensor:
        steps, sets = len(self.alphas_cumprod), len(batch.set_sizes)
        drawn = torch.randint(0, steps, (sets,), generator=generator, device=generator.device)
        sizes = torch.tensor(batch.set_sizes, device=drawn.device)
        return drawn.repeat_interleave(sizes).to(batch.latents.device)

    def _levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t), each (I, 1, 1, 1)."""
        abar = self.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        return abar.sqrt(), (1 - abar).sqrt()


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """sum(weight * values) / sum(weight) over every element; 0 where the weights are all 0."""
    weight = weight.expand_as(values)
    return (weight * values).sum() / weight.sum().clamp_min(torch.finfo(values.dtype).tiny)
