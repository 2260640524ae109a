"""Guidance, equations 3 and 4 of the paper, as pure functions of predictions of any one shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_diffusion.options import GuidanceMode, check_interval, in_interval

MODES: tuple[str, ...] = get_args(GuidanceMode)


def joint_guidance(null: Tensor, full: Tensor, scale: float) -> Tensor:
    """Equation 3: e0 + scale * (e - e0)."""
    return null + scale * (full - null)


def staged_guidance(
    null: Tensor, partial: Tensor, full: Tensor, scale_partial: float, scale_full: float
) -> Tensor:
    """Equation 4: e0 + scale_partial * (e1 - e0) + scale_full * (e - e1)."""
    return null + scale_partial * (partial - null) + scale_full * (full - partial)


def matched_guidance(
    null: Tensor, partial: Tensor, full: Tensor, scale_partial: float, scale_full: float
) -> Tensor:
    """Equation 4 whose two differences first get the smaller of their norms, image by image.

    A large scale then weighs directions alone: it cannot add more than it would of the smaller difference,
    which is what over-exposes pictures. Predictions are (T, ...).
    """
    differences = (partial - null, full - partial)
    norms = [each.flatten(1).norm(dim=1).view(-1, *[1] * (null.ndim - 1)) for each in differences]
    least = torch.minimum(*norms)
    first, second = (
        each * torch.where(norm > 0, least / norm, 0.0) for each, norm in zip(differences, norms, strict=True)
    )
    return null + scale_partial * first + scale_full * second


class Condition(NamedTuple):
    """What a branch of guidance keeps: the captions, and the other pictures of its set."""

    text: bool
    pictures: bool


NULL = Condition(text=False, pictures=False)
TEXT = Condition(text=True, pictures=False)
IMAGE = Condition(text=False, pictures=True)
FULL = Condition(text=True, pictures=True)


@dataclass(frozen=True)
class Guidance:
    """Predictions to make and how to add them up: e_0 + sum over i of scales[i] * (e_(i+1) - e_i).

    One branch is used as it is, two are equation 3, three are equation 4. Guidance acts on the steps between
    the shares `start` and `stop` of them alone (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited
    Interval"); the others see what `full` keeps, in one branch. match_norms: `matched_guidance` in equation
    4's place.
    """

    branches: tuple[Condition, ...]
    scales: tuple[float, ...]
    full: Condition = FULL
    start: float = 0.0
    stop: float = 1.0
    match_norms: bool = False

    @property
    def conditions(self) -> set[Condition]:
        """Every branch of any step."""
        return {*self.branches, self.full} if (self.start, self.stop) != (0, 1) else set(self.branches)

    def at(self, step: int, steps: int) -> Guidance:
        """Return the guidance of a step, from 0, out of `steps`."""
        if in_interval(step, steps, self.start, self.stop):
            return self
        return Guidance((self.full,), ())

    def without_references(self) -> Guidance:
        """Return the guidance of a step at which the references are not read."""
        branches = [Condition(each.text, pictures=False) for each in self.branches]
        return Guidance(*_shortest(branches, list(self.scales), match_norms=False))

    def combine(self, predictions: Sequence[Tensor]) -> Tensor:
        """Return the guided prediction from one prediction a branch, in the order of `branches`."""
        if len(predictions) == 1:
            return predictions[0]
        if len(predictions) == 2:
            return joint_guidance(predictions[0], predictions[1], self.scales[0])
        null, partial, full = predictions
        staged = matched_guidance if self.match_norms else staged_guidance
        return staged(null, partial, full, *self.scales)


def plan_guidance(
    mode: GuidanceMode,
    guidance_scale: float,
    image_guidance_scale: float | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    *,
    text_matters: bool = True,
    pictures_matter: bool = True,
    match_norms: bool = False,
) -> Guidance:
    """Return the fewest branches that give the guidance of `mode`.

    guidance_scale: equation 3's scale, the text's scale in equation 4; image_guidance_scale: the references'
    scale in equation 4, None for guidance_scale.
    `joint`: equation 3. `text_first`: equation 4, the partial prediction sees the text only. `image_first`:
    equation 4, the partial prediction sees the references only. `text_only`: the references stay in both
    predictions, guidance acts on the text alone.
    interval: shares of the steps, 0 to 1, between which guidance acts, as in diffusers' guiders.
    text_matters, pictures_matter: false where dropping them changes nothing (empty captions; no references).
    match_norms: `matched_guidance` in equation 4's place, where the scales leave both of its differences.
    Branches that cancel out are left out: equal neighbours, equal neighbouring scales (of norms that are not
    matched), a scale of 1 at the start or of 0 at the end. Raises UsageError for an unknown mode, a scale
    that is not finite, or an interval that is none.
    """
    if mode not in MODES:
        raise UsageError(f"guidance_mode must be one of {', '.join(MODES)}, not {mode!r}.")
    check_interval(*interval)
    image_scale = guidance_scale if image_guidance_scale is None else image_guidance_scale
    for name, value in (("guidance_scale", guidance_scale), ("image_guidance_scale", image_scale)):
        if not math.isfinite(value):
            raise UsageError(f"{name} must be a finite number, not {value}.")
    branches, scales = {
        "joint": ([NULL, FULL], [guidance_scale]),
        "text_first": ([NULL, TEXT, FULL], [guidance_scale, image_scale]),
        "image_first": ([NULL, IMAGE, FULL], [image_scale, guidance_scale]),
        "text_only": ([IMAGE, FULL], [guidance_scale]),
    }[mode]
    seen = [Condition(each.text and text_matters, each.pictures and pictures_matter) for each in branches]
    full = seen[-1]
    shortest, kept = _shortest(seen, [float(scale) for scale in scales], match_norms)
    return Guidance(shortest, kept, full, *interval, match_norms and len(shortest) == 3)


def _shortest(
    branches: list[Condition], scales: list[float], match_norms: bool
) -> tuple[tuple[Condition, ...], tuple[float, ...]]:
    for i in reversed(range(len(scales))):
        if branches[i] == branches[i + 1]:
            del branches[i + 1], scales[i]
    for i in reversed(range(len(scales) - 1)):
        if scales[i] == scales[i + 1] and not match_norms:
            del branches[i + 1], scales[i + 1]
    while scales and scales[-1] == 0:
        del branches[-1], scales[-1]
    while scales and scales[0] == 1:
        del branches[0], scales[0]
    return tuple(branches), tuple(scales)
