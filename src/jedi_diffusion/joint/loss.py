"""The training loss, equation 2 of the paper.

Letters: S sets in a batch; I pictures in a batch; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.denoiser import Denoiser
from jedi_diffusion.joint.process import Process, Scheduler, process_of
from jedi_diffusion.options import Coupling
from jedi_diffusion.sets import REFERENCE_TIMESTEP, SetBatch


@dataclass(frozen=True)
class NoiseDraw:
    """One draw of noise for a batch, and what the network should answer.

    timesteps (I,), in the process's units; noisy, target (I, C, H, W) float32; weight float32, broadcasts to
    those, the weights of the mean; emphasis (I, 1, 1, 1) float32, multiplies errors but not the mean's
    denominator.
    """

    timesteps: Tensor
    noisy: Tensor
    target: Tensor
    weight: Tensor
    emphasis: Tensor

    @staticmethod
    def concatenate(draws: Sequence[NoiseDraw]) -> NoiseDraw:
        """Return one draw of all batches, in order."""
        names = [item.name for item in fields(NoiseDraw)]
        return NoiseDraw(**{name: torch.cat([getattr(draw, name) for draw in draws]) for name in names})


@dataclass(frozen=True)
class JointLoss:
    """Equation 2: noise every set to one level of its own, predict, mean of the weighted squared error.

    process: what noise does, and what the network predicts of it.
    reference_weight: weight of the references, 1 in the paper's loss (used by coupling "joint" only).
    min_snr: gamma of min-SNR weighting (Hang et al., ICCV 2023), None for the paper's plain mean.
    """

    process: Process
    reference_weight: float = 1.0
    min_snr: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.reference_weight < float("inf"):
            raise UsageError(f"reference_weight must be 0 or more, but is {self.reference_weight}.")
        if self.min_snr is not None and not 0 < self.min_snr < float("inf"):
            raise UsageError(f"min_snr must be more than 0, but is {self.min_snr}.")

    @classmethod
    def from_scheduler(
        cls, scheduler: Scheduler, reference_weight: float = 1.0, min_snr: float | None = None
    ) -> JointLoss:
        """Return the loss over the process of a diffusers scheduler."""
        return cls(process_of(scheduler), reference_weight, min_snr)

    def __call__(
        self, denoiser: Denoiser, batch: SetBatch, generator: torch.Generator, coupling: Coupling = "joint"
    ) -> Tensor:
        """Return a float32 scalar: sum(weight * error^2) / sum(weight), zero where every weight is zero."""
        draw = self.draw(batch, generator, coupling)
        return weighted_mean(self.errors(denoiser, batch, draw, coupling), draw.weight)

    def errors(
        self, denoiser: Denoiser, batch: SetBatch, draw: NoiseDraw, coupling: Coupling = "joint"
    ) -> Tensor:
        """Return (I, C, H, W) float32: the squared errors of a draw, with its emphasis, without its
        weight.
        """
        prediction = denoiser(draw.noisy, draw.timesteps, batch, coupling=coupling)
        return draw.emphasis * (prediction.float() - draw.target) ** 2

    def draw(self, batch: SetBatch, generator: torch.Generator, coupling: Coupling = "joint") -> NoiseDraw:
        """Return one timestep per set, one noise per picture, from the generator alone.

        A set's time follows the density of the process (for `Diffusion` uniform over 0..T-1); the times of a
        batch are one from each of S equal parts of it (Kingma et al., Variational Diffusion Models, 2021), so
        that losses of batches vary less.

        Coupling "cached": references are clean, at REFERENCE_TIMESTEP, and carry no loss. Nor does padding
        beyond an image's own size.
        """
        x0, is_reference = batch.latents.float(), batch.is_reference
        timesteps = self._one_time_per_set(batch, generator)
        noise = torch.randn(x0.shape, generator=generator, device=generator.device).to(x0.device)
        level = self.process.level(timesteps)
        noisy = level.add_noise(x0, noise)
        target = self.process.target(x0, noise, level)
        reference_weight = self.reference_weight
        if coupling == "cached":
            noisy = torch.where(is_reference.view(-1, 1, 1, 1), x0, noisy)
            timesteps = timesteps.masked_fill(is_reference, REFERENCE_TIMESTEP)
            reference_weight = 0.0
        weight = torch.where(is_reference, reference_weight, 1.0).view(-1, 1, 1, 1)
        if batch.weight is not None:
            weight = weight * batch.weight.float()
        if "extent" in batch.conditions:
            weight = weight * _inside(batch)
        return NoiseDraw(timesteps, noisy, target, weight, self.process.emphasis(level, self.min_snr))

    def _one_time_per_set(self, batch: SetBatch, generator: torch.Generator) -> Tensor:
        sets = len(batch.set_sizes)
        strata = torch.randperm(sets, generator=generator, device=generator.device)
        offsets = torch.rand(sets, generator=generator, device=generator.device)
        drawn = self.process.times(strata + offsets, sets)
        sizes = torch.tensor(batch.set_sizes, device=drawn.device)
        return drawn.repeat_interleave(sizes).to(batch.latents.device)


def _inside(batch: SetBatch) -> Tensor:
    """Return (I, 1, H, W) float32: 1 within each image's own size, 0 in its padding."""
    inside = torch.zeros(len(batch.mask), 1, *batch.latents.shape[2:], device=batch.latents.device)
    for image, (height, width) in zip(inside, batch.extents, strict=True):
        image[:, :height, :width] = 1
    return inside


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """sum(weight * values) / sum(weight) over every element; 0 where the weights are all 0."""
    weight = weight.expand_as(values)
    return (weight * values).sum() / weight.sum().clamp_min(torch.finfo(values.dtype).tiny)
