"""The replacement trick: the known pictures of a set follow the forward process while the others are sampled.

Section 3.3 of the paper. Letters: R references; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from torch import Tensor

from jedi_diffusion.diffusion.levels import NoiseLevel


def renoise(references: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
    """References at the noise level of the targets, as the network sees them: (R, C, H, W).

    references: clean latents; noise: the one noise that a reference keeps through all steps. The result is
    sqrt(abar_t) * x0 + sqrt(1 - abar_t) * n.
    """
    return level.add_noise(references, noise)
