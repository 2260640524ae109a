"""A stand-in for CLIP's image encoder: latents and captions brought together (Radford et al., ICML 2021).

What differs: a small convolutional network that reads the backbone's latents, captions by the backbone's own
text encoder, a temperature that stays. Letters: I pictures; C, H, W latents; T text features; F features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 0.07


class ContrastiveEncoder(nn.Module):
    """Latents, and captions' features from elsewhere, as directions in one space."""

    def __init__(self, latent_channels: int, text_width: int, features: int, width: int = 128) -> None:
        super().__init__()
        self.read = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(4))
        self.project = nn.Linear(2 * width, features)
        self.text = nn.Linear(text_width, features)

    def forward(self, latents: Tensor) -> Tensor:
        """Clean latents (I, C, H, W) to (I, F), of length 1."""
        x = self.read(latents)
        for block in self.blocks:
            x = x + block(F.silu(x))
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        return F.normalize(self.project(pooled).float(), dim=1)

    def loss(self, latents: Tensor, texts: Tensor) -> Tensor:
        """Symmetric cross-entropy of telling each picture's caption from the others', and back.

        latents (I, C, H, W); texts (I, T): the pooled features of each picture's caption.
        """
        return contrastive_loss(self(latents), F.normalize(self.text(texts).float(), dim=1))


def contrastive_loss(images: Tensor, texts: Tensor) -> Tensor:
    """Return the same of directions (I, F) and (I, F), row i of one belonging to row i of the other."""
    similar = images @ texts.T / TEMPERATURE
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(similar, own) + F.cross_entropy(similar.T, own)) / 2
