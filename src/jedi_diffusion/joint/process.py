"""What noise does: how it mixes with an image, what a network predicts of it, how it is sampled.

Two processes: `Diffusion` over a table of alphas_cumprod (Stable Diffusion), `Flow` along lines (SD3, FLUX).
Letters: S sets; I images; C, H, W a latent's channels, height, width; T steps of a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_diffusion.parts import Config, setting

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class Scheduler(Protocol):
    """What is asked of a diffusers scheduler; each kind has what its process asks for."""

    config: Config
    timesteps: Tensor
    sigmas: Tensor
    step_index: int | None
    alphas_cumprod: Tensor
    init_noise_sigma: float

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor: ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    def set_timesteps(self, num_inference_steps: int | None = None, **settings: object) -> None: ...

    def set_begin_index(self, begin_index: int) -> None: ...

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, **settings: object
    ) -> tuple[Tensor, ...]: ...


class NoiseLevel(NamedTuple):
    """The network sees alpha * x0 + sigma * n; both are tensors () or broadcast over images."""

    alpha: Tensor
    sigma: Tensor

    def add_noise(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Return clean latents (I, C, H, W) at this level: the forward process, and the replacement trick.

        The latter (section 3.3) keeps one noise a reference through all steps.
        """
        return self.alpha * clean + self.sigma * noise


class Process(Protocol):
    """What the loss and the sampler ask about noise.

    Training speaks of times in the network's own units, sampling of steps of a diffusers scheduler.
    """

    def times(self, place: Tensor, of: int) -> Tensor:
        """Return the training times at these places of the schedule, fractions place / of in 0..1."""
        ...

    def level(self, time: Tensor) -> NoiseLevel:
        """Return the level at times (I,), as tensors (I, 1, 1, 1) in float32."""
        ...

    def target(self, clean: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
        """Return what the network should predict, (I, C, H, W)."""
        ...

    def clean(self, noisy: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Return what a prediction says about the clean latents of `noisy`, all (I, C, H, W)."""
        ...

    def emphasis(self, level: NoiseLevel, min_snr: float | None) -> Tensor:
        """Return what squared errors are multiplied with, (I, 1, 1, 1)."""
        ...

    def initial_scale(self, scheduler: Scheduler) -> float:
        """Return the standard deviation of the first noisy latents in the scheduler's scale."""
        ...

    def level_of_step(self, scheduler: Scheduler, timestep: Tensor, like: Tensor) -> NoiseLevel:
        """Return the level at the scheduler's next step, in the dtype and on the device of `like`."""
        ...

    def network_input(self, scheduler: Scheduler, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the scheduler's latents as the network sees them at its next step."""
        ...

    def network_time(self, scheduler: Scheduler, timestep: Tensor) -> Tensor:
        """Return a scheduler's timestep in the network's units."""
        ...


@dataclass(frozen=True)
class Diffusion:
    """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) n, at times 0..T-1 (Ho et al., NeurIPS 2020).

    alphas_cumprod (T,): the noise schedule. prediction_type: as diffusers names it, "epsilon",
    "v_prediction", or "sample" (the clean latents x0, whose errors count as those of v would). Raises
    UsageError for another.
    """

    alphas_cumprod: Tensor
    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            known = ", ".join(PREDICTION_TYPES)
            raise UsageError(f"The loss knows prediction types {known}, not {self.prediction_type!r}.")

    def times(self, place: Tensor, of: int) -> Tensor:
        """Return int64 timesteps, uniform over the table."""
        steps = len(self.alphas_cumprod)
        return (place * steps / of).long().clamp(max=steps - 1)

    def level(self, time: Tensor) -> NoiseLevel:
        abar = self.alphas_cumprod.to(time.device)[time].view(-1, 1, 1, 1)
        return NoiseLevel(abar.sqrt(), (1 - abar).sqrt())

    def target(self, clean: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
        if self.prediction_type == "epsilon":
            return noise
        return clean if self.prediction_type == "sample" else level.alpha * noise - level.sigma * clean

    def clean(self, noisy: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        if self.prediction_type == "sample":
            return prediction
        if self.prediction_type == "v_prediction":
            return level.alpha * noisy - level.sigma * prediction
        return (noisy - level.sigma * prediction) / level.alpha

    def emphasis(self, level: NoiseLevel, min_snr: float | None) -> Tensor:
        """Return weights of the squared error at levels of SNR = alpha^2 / sigma^2.

        epsilon: 1, with min-SNR min(SNR, gamma) / SNR. v: 1, with min-SNR min(SNR, gamma) / (SNR + 1).
        sample: SNR + 1, which makes its error v's (Salimans & Ho, ICLR 2022); with min-SNR at most gamma + 1,
        for near clean pictures would outweigh all others.
        """
        alpha, sigma = level
        if self.prediction_type == "sample":
            least = 0.0 if min_snr is None else 1 / (min_snr + 1)
            return 1 / (sigma**2).clamp(min=least)
        if min_snr is None:
            return torch.ones_like(alpha)
        capped = torch.minimum(alpha**2, min_snr * sigma**2)  # sigma^2 * min(SNR, gamma)
        if self.prediction_type == "v_prediction":
            return capped
        return torch.where(alpha > 0, capped / alpha**2, 1.0)

    def initial_scale(self, scheduler: Scheduler) -> float:
        return float(scheduler.init_noise_sigma)

    def level_of_step(self, scheduler: Scheduler, timestep: Tensor, like: Tensor) -> NoiseLevel:
        """Return the level at the scheduler's next step.

        Schedulers that work in sigma space divide what the network sees by sqrt(sigma^2 + 1), and thereby say
        which sigma they are at. Their `add_noise` does not: in the second half of a step of second order the
        sigma is one between two of its table. The others' `add_noise` gives alpha and sigma.
        """
        scale = float(scheduler.scale_model_input(torch.ones((), dtype=torch.float64), timestep))
        if scale != 1:
            return NoiseLevel(like.new_tensor(scale), like.new_tensor((1 - scale**2) ** 0.5))
        clean, noise = like.new_tensor([1.0, 0.0]), like.new_tensor([0.0, 1.0])
        return NoiseLevel(*scheduler.add_noise(clean, noise, timestep.expand(2)))

    def network_input(self, scheduler: Scheduler, latents: Tensor, timestep: Tensor) -> Tensor:
        scaled: Tensor = scheduler.scale_model_input(latents, timestep)
        return scaled

    def network_time(self, scheduler: Scheduler, timestep: Tensor) -> Tensor:
        return timestep


@dataclass(frozen=True)
class Flow:
    """x_s = (1 - s) x0 + s n at times s in 0..1; its velocity n - x0 is predicted (Lipman et al., ICLR 2023).

    density: of training times, "uniform" or "logit_normal" of mean 0 and deviation 1 (Esser et al., SD3,
    ICML 2024, eq. 19). shift: s' = shift * s / (1 + (shift - 1) * s) (eq. 23) moves times towards
    noise, for images of more pixels; 1 for none. Raises UsageError for a shift that is not above 0.
    """

    density: Literal["uniform", "logit_normal"] = "logit_normal"
    shift: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.shift < float("inf"):
            raise UsageError(f"The shift of a flow's times must be more than 0, but is {self.shift}.")

    def times(self, place: Tensor, of: int) -> Tensor:
        time = place / of
        if self.density == "logit_normal":
            time = torch.special.ndtri(time).sigmoid()
        return self.shift * time / (1 + (self.shift - 1) * time)

    def level(self, time: Tensor) -> NoiseLevel:
        sigma = time.float().view(-1, 1, 1, 1)
        return NoiseLevel(1 - sigma, sigma)

    def target(self, clean: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
        return noise - clean

    def clean(self, noisy: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        return noisy - level.sigma * prediction

    def emphasis(self, level: NoiseLevel, min_snr: float | None) -> Tensor:
        """Return 1: a flow weighs its times by their density. Raises UsageError for a `min_snr`."""
        if min_snr is not None:
            raise UsageError("min_snr is for diffusion over alphas_cumprod; leave it out for a flow.")
        return torch.ones_like(level.alpha)

    def initial_scale(self, scheduler: Scheduler) -> float:
        return 1.0

    def level_of_step(self, scheduler: Scheduler, timestep: Tensor, like: Tensor) -> NoiseLevel:
        """Return the level of the scheduler's own sigma; some round the timestep that they name it by."""
        sigma = scheduler.sigmas[scheduler.step_index or 0].to(like)
        return NoiseLevel(1 - sigma, sigma)

    def network_input(self, scheduler: Scheduler, latents: Tensor, timestep: Tensor) -> Tensor:
        return latents

    def network_time(self, scheduler: Scheduler, timestep: Tensor) -> Tensor:
        return timestep / setting(scheduler.config, "num_train_timesteps", int)


def resolution_shift(config: Config, tokens: int, most: float) -> float:
    """Return mu of a flow's dynamic shift, linear in the number of tokens of an image (FLUX.1, SD3.5).

    config: the scheduler's; most: at its largest image, where it does not say (`max_shift`).
    """
    fewest = setting(config, "base_image_seq_len", int, 256)
    largest = setting(config, "max_image_seq_len", int, 4096)
    low, high = setting(config, "base_shift", float, 0.5), setting(config, "max_shift", float, most)
    slope = (high - low) / (largest - fewest)
    return tokens * slope + (low - slope * fewest)


def process_of(scheduler: Scheduler) -> Process:
    """Return the process that a diffusers scheduler samples."""
    config = scheduler.config
    predicted = setting(config, "prediction_type", str, "epsilon")
    flows = setting(config, "use_flow_sigmas", bool, False) or predicted == "flow_prediction"
    if flows or not hasattr(scheduler, "alphas_cumprod"):
        return Flow(shift=setting(config, "shift", float, 1.0))
    return Diffusion(scheduler.alphas_cumprod.clone().float(), predicted)
