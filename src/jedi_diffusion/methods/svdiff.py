"""SVDiff: the singular values of the weights, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from jedi_diffusion.methods.finetuned import FinetunedMethod
from jedi_diffusion.methods.fitting import FitSettings
from jedi_diffusion.methods.naming import NamedSubject, identifier

SETTINGS = FitSettings(steps=500, learning_rate=1e-3, prior_pictures=100, weight_decay=0.0)

Spectrum = tuple[Tensor, Tensor, Tensor]


class SpectralShift(nn.Module):
    """A weight W = U diag(s) V^T with shifted singular values: U diag(relu(s + d)) V^T (eq. 2 of SVDiff).

    Computed as W + U diag(relu(s + d) - s) V^T, which is W itself, bit for bit, at d = 0. Weights of
    convolutions count as matrices of one row an output channel.
    """

    u: Tensor
    s: Tensor
    vt: Tensor

    def __init__(self, spectrum: Spectrum) -> None:
        super().__init__()
        for name, each in zip(("u", "s", "vt"), spectrum, strict=True):
            self.register_buffer(name, each, persistent=False)
        self.shift = nn.Parameter(torch.zeros_like(self.s))

    def forward(self, weight: Tensor) -> Tensor:
        change = (self.u * (F.relu(self.s + self.shift) - self.s)) @ self.vt
        return weight + change.view_as(weight)


@dataclass(frozen=True)
class SVDiff(NamedSubject):
    """Han et al., ICCV 2023, for one subject: captions "a [name] [class]", and prior preservation.

    What differs: shifts on the UNet's linear and convolution weights alone; norms, biases and the text
    encoder stay as they are. The decomposition of a backbone is computed once and kept, about twice the
    weights' memory.
    """

    _spectra: dict[str, tuple[Tensor, Spectrum]] = field(default_factory=dict, repr=False, compare=False)

    def add(self, pipeline: Any, noun: str, random: torch.Generator) -> dict[str, nn.Parameter]:
        identifier(pipeline, self.name, random)
        layers = {
            name: each
            for name, each in pipeline.unet.named_modules()
            if isinstance(each, nn.Linear | nn.Conv2d)
        }
        shifts = {}
        for name, layer in layers.items():
            shift = SpectralShift(self._decomposed(name, layer.weight))
            parametrize.register_parametrization(layer, "weight", shift)
            shifts[name] = shift.shift
        return shifts

    def _decomposed(self, name: str, weight: Tensor) -> Spectrum:
        """Return a layer's spectrum; that of the same weight, held so that its place in memory is taken, is
        kept.
        """
        known = self._spectra.get(name)
        if known is None or (known[0].data_ptr(), known[0].shape) != (weight.data_ptr(), weight.shape):
            known = self._spectra[name] = weight.detach(), decompose(weight)
        return known[1]


def decompose(weight: Tensor) -> Spectrum:
    """U (rows, k), s (k,) and V^T (k, columns) of a weight, its output channels as rows."""
    u, s, vt = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
    return u, s, vt


class SVDiffMethod(FinetunedMethod):
    """SVDiff: singular values of the weights."""

    kind: Literal["svdiff"]

    def tuning(self) -> tuple[SVDiff, FitSettings]:
        return SVDiff(), SETTINGS
