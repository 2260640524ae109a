"""What the loss and the sampler ask of a model: one callable."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from jedi_diffusion.joint.cache import CacheView
from jedi_diffusion.joint.record import AttentionWriter
from jedi_diffusion.options import Coupling
from jedi_diffusion.sets import SetBatch


class Denoiser(Protocol):
    """A joint-image network as a function.

    noisy (I, C, H, W); timestep () or (I,), in the process's units; batch: the conditions of the pictures.
    Returns the prediction (I, C, H, W): the noise, or v, as the network was trained.
    With `reference_cache` the batch holds targets only and reads the references from it. `attention_record`
    takes down where the targets look.
    """

    def __call__(
        self,
        noisy: Tensor,
        timestep: Tensor,
        batch: SetBatch,
        coupling: Coupling = "joint",
        reference_cache: CacheView | None = None,
        attention_record: AttentionWriter | None = None,
    ) -> Tensor: ...
