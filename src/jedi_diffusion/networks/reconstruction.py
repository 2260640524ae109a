"""Pictures as tensors and back, and how well an autoencoder gives them back.

Letters: I pictures; H, W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jedi_diffusion.parts import Autoencoder


def to_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """Return RGB pictures of one size as (I, 3, H, W) in [-1, 1]."""
    stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(tensor: Tensor) -> list[Image.Image]:
    """Return (I, 3, H, W) in [-1, 1], clipped, as RGB pictures."""
    bytes_ = ((tensor.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [Image.fromarray(array) for array in bytes_.permute(0, 2, 3, 1).cpu().numpy()]


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Return peak signal-to-noise ratio in dB of each picture, (I,), for pictures in [-1, 1]
    (clipped to it).
    """
    error = (first.clamp(-1, 1) - second.clamp(-1, 1)).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp_min(1e-10))


def describe_psnr(quality: Tensor) -> str:
    """ "mean 27.1 dB, 22.0 to 33.0"."""
    return f"mean {quality.mean():.2f} dB, {quality.min():.2f} to {quality.max():.2f}"


@torch.no_grad()
def reconstruct(
    autoencoder: Autoencoder, pictures: Sequence[Image.Image]
) -> tuple[list[Image.Image], Tensor]:
    """Return the pictures through the autoencoder (PatchAutoencoder or AutoencoderKL), and each one's PSNR in
    dB, (I,), over pictures rounded to 8 bits.
    """
    x = to_tensor(pictures)
    parameter = next(autoencoder.parameters())
    decoded = to_pictures(autoencoder(x.to(parameter)).sample)
    return decoded, psnr(to_tensor(decoded), x)
