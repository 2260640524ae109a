"""How far a model's prediction of a clean picture is off, with its own reference, another's, and none.

The three errors say what samples and scores hide: whether a reference helps at a noise level, and how much.

Letters: S subjects; C, h latents; K text tokens; D text features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTextModel

from jedi_diffusion.data.source import RenderedSets
from jedi_diffusion.joint.denoiser import Denoiser
from jedi_diffusion.joint.process import Process
from jedi_diffusion.options import Coupling
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.sets import REFERENCE_TIMESTEP, Conditions, SetBatch
from jedi_diffusion.train.pool import LatentPool, to_unit

CHUNK = 16  # subjects at a time

Given = Literal["own", "other", "none"]
GIVEN: tuple[Given, ...] = ("own", "other", "none")


class LevelErrors(NamedTuple):
    """Squared errors of a latent (summed over its channels) at one noise level; 1 is the variance of the
    strongest channel.
    """

    time: float
    noise: float
    own: float
    other: float
    none: float


@dataclass(frozen=True)
class Pairs:
    """Two pictures of each subject: target and reference (S, C, h, h), coverage (S, 1, h, h), the share of
    each of the target's latents that shows the subject, and what is said of both (S rows).
    """

    target: Tensor
    reference: Tensor
    coverage: Tensor
    captions: Conditions
    names: Conditions

    @classmethod
    @torch.no_grad()
    def of_pool(cls, pool: LatentPool, text_encoder: CLIPTextModel) -> "Pairs":
        """Return those of a pool of sets of two pictures or more: the first is the reference, the second the
        target.
        """
        captions, names = (
            {"text": text_encoder(tokens.long()).last_hidden_state}
            for tokens in (pool.captions[:, 1], pool.names)
        )
        coverage = pool.coverage[:, 1].float().unsqueeze(1) / 255
        return cls(pool.latents[:, 1].float(), pool.latents[:, 0].float(), coverage, captions, names)

    @classmethod
    @torch.no_grad()
    def of_sets(cls, sets: RenderedSets, pipeline: JeDiPipeline) -> "Pairs":
        """Return the same of rendered sets as a pipeline encodes them; references have their subject's name,
        or no caption in a family whose references have none.
        """
        reference, target = (
            torch.cat(
                [pipeline.encode_pictures(to_unit(part)) for part in sets.pictures[:, number].split(CHUNK)]
            )
            for number in (0, 1)
        )
        silent = pipeline.backbone.tells_captioned
        return cls(
            target,
            reference,
            F.adaptive_avg_pool2d(sets.masks[:, 1:2].float(), target.shape[-1]),
            pipeline.encode_captions([captions[1] for captions in sets.captions]),
            pipeline.encode_captions(["" if silent else name for name in sets.names]),
        )


@torch.no_grad()
def prediction_errors(
    denoiser: Denoiser,
    pairs: Pairs,
    process: Process,
    times: Sequence[float],
    generator: torch.Generator,
    coupling: Coupling = "cached",
) -> list[LevelErrors]:
    """Return the mean squared error of the predicted x0 on the subject, for each time of the process.

    "other" takes the next subject's reference. `noise` is sigma / alpha, inf at zero signal-to-noise, where
    an epsilon tells nothing of x0 and 0 is taken. The noise is the same for all three. With coupling "joint"
    the references are clean, at the target's time: for models that read them so.
    """
    target = pairs.target
    noise = torch.randn(target.shape, generator=generator)
    unit = target.var(dim=(0, 2, 3)).max()
    rows = []
    for time in times:
        level = process.level(torch.tensor([time]))
        noisy = level.add_noise(target, noise)
        errors = {}
        for given in GIVEN:
            shift = 1 if given == "other" else 0
            names = {name: value.roll(-shift, 0) for name, value in pairs.names.items()}
            shown = None if given == "none" else (pairs.reference.roll(-shift, 0), names)
            predicted = _predict(denoiser, noisy, time, pairs.captions, shown, coupling)
            clean = process.clean(noisy, predicted, level).nan_to_num(0.0, 0.0, 0.0)
            off = ((clean - target) ** 2).sum(1, keepdim=True)
            errors[given] = float((pairs.coverage * off).sum() / pairs.coverage.sum() / unit)
        rows.append(LevelErrors(time, float(level.sigma / level.alpha), **errors))
    return rows


def _predict(
    denoiser: Denoiser,
    noisy: Tensor,
    time: float,
    captions: Mapping[str, Tensor],
    shown: tuple[Tensor, Mapping[str, Tensor]] | None,
    coupling: Coupling,
) -> Tensor:
    """Return the network's answer for every target, each in a set with the reference that it is shown, or
    alone.
    """
    parts = []
    for start in range(0, len(noisy), CHUNK):
        chosen = slice(start, start + CHUNK)
        latents, said = noisy[chosen], {name: value[chosen] for name, value in captions.items()}
        count = len(latents)
        times = torch.full((count,), time)
        mask = torch.ones(count, 1, 1, 1)
        if shown is None:
            batch = SetBatch(torch.zeros_like(latents), mask, said, (1,) * count)
            parts.append(denoiser(latents, times, batch, coupling=coupling).float())
            continue
        reference = shown[0][chosen]
        batch = SetBatch(
            _alternate(reference, torch.zeros_like(latents)),
            _alternate(torch.zeros_like(mask), mask),
            {name: _alternate(shown[1][name][chosen], value) for name, value in said.items()},
            (2,) * count,
        )
        at = torch.full_like(times, REFERENCE_TIMESTEP) if coupling == "cached" else times
        both = denoiser(
            _alternate(reference, latents), _alternate(at, times), batch, coupling=coupling
        ).float()
        parts.append(both[1::2])
    return torch.cat(parts)


def _alternate(first: Tensor, second: Tensor) -> Tensor:
    """Return rows of both in turn."""
    return torch.stack([first, second], dim=1).flatten(0, 1)
