"""A small autoencoder for small pictures: a linear patch transform plus a learned residual.

AutoencoderKL spends most of its time in layers at full resolution. Here nothing runs above a quarter of it:
pixels are folded into channels first. The linear path alone is the best linear code of a patch (its principal
components), so training starts from a working code, and latents keep its order: coarse components vary
most. It is called exactly like AutoencoderKL.

Letters: I pictures; H, W pixels; C latent channels; P = 8, pixels of a patch's side; f = `fold`.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from jedi_diffusion.errors import ModelError

PATCH = 8


@dataclass
class DeterministicLatents:
    """What `encode` gives in place of a distribution: one latent a picture, (I, C, H/8f, W/8f)."""

    latents: Tensor

    def mode(self) -> Tensor:
        return self.latents

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.latents


@dataclass
class EncoderOutput(BaseOutput):
    latent_dist: DeterministicLatents


@dataclass
class DecoderOutput(BaseOutput):
    sample: Tensor


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(norm(x)))), the last convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        _zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(self.norm(x))))


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _fill(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    for name, parameter in layer.named_parameters():
        parameter.copy_(weight if name == "weight" else bias)


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Pictures in [-1, 1], (I, 3, H, W), to latents (I, C, H/8f, W/8f) of about unit variance, and back.

    H and W are multiples of 8f. `widths` are the channels of the learned paths at 1/4 and 1/8 of the
    resolution. `fold`: f by f neighbours, each of C/f^2 channels, are handed out as one latent (DiT's patch
    size, Peebles & Xie, ICCV 2023), which makes a diffusion model f^2 times cheaper. `block_out_channels` is
    where diffusers reads the factor 8f.
    """

    config_name: Any = "config.json"

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 24,
        widths: tuple[int, int] = (64, 128),
        encoder_blocks: tuple[int, int] = (2, 2),
        decoder_blocks: tuple[int, int] = (3, 3),
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1),
        fold: int = 1,
    ) -> None:
        super().__init__()
        if fold < 1 or fold.bit_count() != 1 or latent_channels % fold**2:
            raise ModelError(
                f"fold is {fold}: a power of 2 is needed whose square divides {latent_channels}."
            )
        self.register_to_config(block_out_channels=(1,) * (3 + fold.bit_length()))
        channels = latent_channels // fold**2
        fine, coarse = widths
        values = 3 * PATCH * PATCH
        self.analysis = nn.Conv2d(3, channels, PATCH, stride=PATCH)
        self.synthesis = nn.ConvTranspose2d(channels, 3, PATCH, stride=PATCH)
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(values // 4, fine, 3, padding=1),
            *(ResidualBlock(fine) for _ in range(encoder_blocks[0])),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * fine, coarse, 1),
            *(ResidualBlock(coarse) for _ in range(encoder_blocks[1])),
            nn.SiLU(),
            _zero(nn.Conv2d(coarse, channels, 3, padding=1)),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, coarse, 3, padding=1),
            *(ResidualBlock(coarse) for _ in range(decoder_blocks[1])),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
            *(ResidualBlock(fine) for _ in range(decoder_blocks[0])),
            nn.SiLU(),
            _zero(nn.Conv2d(fine, values // 4, 3, padding=1)),
            nn.PixelShuffle(4),
        )

    @apply_forward_hook
    def encode(self, sample: Tensor) -> EncoderOutput:
        """Latents of pictures in [-1, 1], under `.latent_dist.mode()`."""
        latents = F.pixel_unshuffle(self.analysis(sample) + self.encoder(sample), self.config["fold"])
        return EncoderOutput(latent_dist=DeterministicLatents(latents))

    @apply_forward_hook
    def decode(self, latents: Tensor) -> DecoderOutput:
        """Return pictures of latents, about [-1, 1] (not clipped), under `.sample`."""
        latents = F.pixel_shuffle(latents, self.config["fold"])
        return DecoderOutput(sample=self.synthesis(latents) + self.decoder(latents))

    def forward(self, sample: Tensor) -> DecoderOutput:
        return self.decode(self.encode(sample).latent_dist.mode())

    @torch.no_grad()
    def start_from_principal_components(self, pictures: Tensor) -> None:
        """Set the linear path to the principal components of the pictures' patches, (I, 3, H, W) in [-1, 1].

        A component of standard deviation s gets the scale s^(-1/2), so that noise on latents in training
        costs fine components less than it would in pixels; overall variance is 1. `make_isometric` undoes
        the scales afterwards.
        """
        patches = F.unfold(pictures.float(), PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(0)
        variance, basis = torch.linalg.eigh(torch.cov((patches - mean).T))
        channels = self.analysis.out_channels
        basis = basis.flip(1)[:, :channels].T  # (C, 3*P*P), strongest first
        deviation = variance.flip(0)[:channels].clamp(min=1e-8).sqrt()
        scale = deviation.rsqrt()
        scale = scale / (scale * deviation).square().mean().sqrt()
        shape = (channels, 3, PATCH, PATCH)
        _fill(self.analysis, (scale[:, None] * basis).view(shape), -scale * (basis @ mean))
        # The mean patch is not constant over its pixels; the nearest bias is its mean per colour.
        _fill(self.synthesis, (basis / scale[:, None]).view(shape), mean.view(3, -1).mean(1))

    @torch.no_grad()
    def make_isometric(self, pictures: Tensor, strongest: float = 4.0) -> None:
        """Scale the latents' channels so that a change of 1 in any of them changes the picture by as much,
        and the strongest has the standard deviation `strongest` on `pictures` (I, 3, H, W) in [-1, 1].

        Squared errors and noise of latents are then those of pixels, times a constant: a diffusion model
        makes coarse things before fine ones. The linear path's kernels are the measure; the decoder's own
        part of the change is small. Reconstructions stay as they are.
        """
        latents = F.pixel_shuffle(self.encode(pictures).latent_dist.mode(), self.config["fold"])
        scale = self.synthesis.weight.flatten(1).norm(dim=1)
        scale = scale * strongest / (scale * latents.std(dim=(0, 2, 3))).max()
        for maker in (self.analysis, self.encoder[-1]):
            for parameter in maker.parameters():
                parameter.mul_(scale.view(-1, *[1] * (parameter.dim() - 1)))
        self.synthesis.weight.div_(scale.view(-1, 1, 1, 1))
        self.decoder.get_parameter("0.weight").div_(scale.view(1, -1, 1, 1))
