"""How far a model's prediction of a clean picture is off, with its own reference, another's, and none.

The three errors say what samples and scores hide: whether a reference helps at a noise level, and how much.

Letters: S subjects; N pictures of each in the pool; C, h latents; K text tokens; D text features.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import CLIPTextModel

from jedi_diffusion.joint.denoiser import Denoiser
from jedi_diffusion.joint.process import Process
from jedi_diffusion.sets import REFERENCE_TIMESTEP, SetBatch
from jedi_diffusion.train.pool import LatentPool

CHUNK = 16  # subjects at a time

Given = Literal["own", "other", "none"]
GIVEN: tuple[Given, ...] = ("own", "other", "none")


class LevelErrors(NamedTuple):
    """Squared errors of a latent (summed over its channels) at one noise level; 1 is the variance of the
    strongest channel.
    """

    timestep: int
    noise: float
    own: float
    other: float
    none: float


@torch.no_grad()
def prediction_errors(
    denoiser: Denoiser,
    text_encoder: CLIPTextModel,
    pool: LatentPool,
    process: Process,
    times: Sequence[int],
    generator: torch.Generator,
) -> list[LevelErrors]:
    """Return the mean squared error of the predicted x0 on the subject, for each time of the process.

    pool: sets of two pictures or more; picture 0 is the reference (coupling "cached"), picture 1 the target,
    and "other" takes picture 0 of the next subject. `noise` is sigma / alpha, inf at zero signal-to-noise,
    where an epsilon tells nothing of x0 and 0 is taken. The noise is the same for all three.
    """
    target, reference = pool.latents[:, 1].float(), pool.latents[:, 0].float()
    weight = pool.coverage[:, 1].float().unsqueeze(1) / 255
    text, name = (
        text_encoder(tokens.long()).last_hidden_state for tokens in (pool.captions[:, 1], pool.names)
    )
    noise = torch.randn(target.shape, generator=generator)
    unit = target.var(dim=(0, 2, 3)).max()
    rows = []
    for timestep in times:
        level = process.level(torch.tensor([timestep]))
        noisy = level.add_noise(target, noise)
        errors = {}
        for given in GIVEN:
            shift = 1 if given == "other" else 0
            shown = None if given == "none" else (reference.roll(-shift, 0), name.roll(-shift, 0))
            predicted = _predict(denoiser, noisy, timestep, text, shown)
            clean = process.clean(noisy, predicted, level).nan_to_num(0.0, 0.0, 0.0)
            off = ((clean - target) ** 2).sum(1, keepdim=True)
            errors[given] = float((weight * off).sum() / weight.sum() / unit)
        rows.append(LevelErrors(timestep, float(level.sigma / level.alpha), **errors))
    return rows


def _predict(
    denoiser: Denoiser, noisy: Tensor, timestep: int, text: Tensor, shown: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Return the network's answer for every target, each in a set with the reference that it is shown, or
    alone.
    """
    parts = []
    for start in range(0, len(noisy), CHUNK):
        chosen = slice(start, start + CHUNK)
        latents, words = noisy[chosen], text[chosen]
        count = len(latents)
        times = torch.full((count,), timestep)
        mask = torch.ones(count, 1, 1, 1)
        if shown is None:
            batch = SetBatch(torch.zeros_like(latents), mask, {"text": words}, (1,) * count)
            parts.append(denoiser(latents, times, batch, coupling="cached").float())
            continue
        reference, name = (part[chosen] for part in shown)
        batch = SetBatch(
            _alternate(reference, torch.zeros_like(latents)),
            _alternate(torch.zeros_like(mask), mask),
            {"text": _alternate(name, words)},
            (2,) * count,
        )
        both = _alternate(torch.full_like(times, REFERENCE_TIMESTEP), times)
        parts.append(denoiser(_alternate(reference, latents), both, batch, coupling="cached")[1::2].float())
    return torch.cat(parts)


def _alternate(first: Tensor, second: Tensor) -> Tensor:
    """Return rows of both in turn."""
    return torch.stack([first, second], dim=1).flatten(0, 1)
