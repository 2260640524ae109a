"""SVDiff: the singular values of the weights, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

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

    _spectra: WeakKeyDictionary[nn.Module, dict[str, Spectrum]] = field(
        default_factory=WeakKeyDictionary, repr=False, compare=False
    )

    @contextmanager
    def changed(self, pipeline: Any, noun: str, random: torch.Generator) -> Iterator[dict[str, nn.Parameter]]:
        with identifier(pipeline, self.name, random), ExitStack() as stack:
            shifts = {}
            for name, spectrum in self._decomposed(pipeline.unet).items():
                layer, shift = pipeline.unet.get_submodule(name), SpectralShift(spectrum)
                parametrize.register_parametrization(layer, "weight", shift)
                stack.callback(_restore, layer)
                shifts[name] = shift.shift
            yield shifts

    def _decomposed(self, unet: nn.Module) -> dict[str, Spectrum]:
        if unet not in self._spectra:
            layers = {
                name: each for name, each in unet.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)
            }
            self._spectra[unet] = {name: decompose(each.weight) for name, each in layers.items()}
        return self._spectra[unet]


def decompose(weight: Tensor) -> Spectrum:
    """U (rows, k), s (k,) and V^T (k, columns) of a weight, its output channels as rows."""
    u, s, vt = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
    return u, s, vt


def _restore(layer: nn.Module) -> None:
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


class SVDiffMethod(FinetunedMethod):
    """SVDiff: singular values of the weights."""

    kind: Literal["svdiff"]

    def tuning(self) -> tuple[SVDiff, FitSettings]:
        return SVDiff(), SETTINGS
