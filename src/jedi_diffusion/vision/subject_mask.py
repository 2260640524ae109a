"""Which pixels of a photo show its subject: a small segmentation network that ships with the package.

Its encoder is the first five stages of EfficientNet-Lite0, as ImageNet taught them, and stays so: only the
decoder is trained, on composed pictures whose masks are exact (`jedi showroom masks`), so that what the
network looks at is what photos look like. The decoder is a feature pyramid (Lin et al. 2017) with one
vector of the whole picture added at its top, because what the subject is depends on all of it. Letters: B
pictures; C channels; H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from jedi_diffusion.vision.efficientnet import EfficientNetLite
from jedi_diffusion.vision.features import exact
from jedi_diffusion.vision.lite import MEAN, STD
from jedi_diffusion.weights import load_strict

if TYPE_CHECKING:
    from jedi_diffusion.vision.detection import Mask

SIDE = 192  # pixels; whatever its shape, a picture is brought to this square
WEIGHTS = Path(__file__).with_name("weights") / "subject_mask.safetensors"
TAPS = (0, 2, 4, 10)
"""Blocks of Lite0 after which features are read: at 1/2, 1/4, 1/8 and 1/16 of the side."""
CHANNELS = (16, 24, 40, 112)
WIDTH = 64
BATCH = 32


class Refinement(nn.Module):
    """Features of one level, with those of the level above: each channel filtered, then all mixed."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(before, WIDTH, 1)
        self.filter = nn.Conv2d(WIDTH, WIDTH, 5, padding=2, groups=WIDTH)
        self.norm = nn.GroupNorm(8, WIDTH)
        self.mix = nn.Sequential(nn.Conv2d(WIDTH, 2 * WIDTH, 1), nn.SiLU(), nn.Conv2d(2 * WIDTH, WIDTH, 1))

    def forward(self, features: Tensor, above: Tensor | None) -> Tensor:
        x = self.lateral(features)
        if above is not None:
            x = x + F.interpolate(above, x.shape[-2:], mode="bilinear", align_corners=False)
        return x + self.mix(self.norm(self.filter(x)))


class SubjectMaskNetwork(nn.Module):
    """Pictures (B, 3, SIDE, SIDE), normalized as EfficientNet-Lite wants them, to logits (B, SIDE, SIDE)."""

    def __init__(self) -> None:
        super().__init__()
        lite = EfficientNetLite()
        self.stem, self.blocks = lite.stem, _first_blocks(lite)
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.whole = nn.Linear(CHANNELS[-1], WIDTH)
        self.levels = nn.ModuleList(Refinement(channels) for channels in CHANNELS)
        self.logits = nn.Conv2d(WIDTH, 1, 3, padding=1)

    def take_encoder(self, lite: EfficientNetLite) -> None:
        """Copy the first stages of a network that ImageNet has taught."""
        self.stem.load_state_dict(lite.stem.state_dict())
        self.blocks.load_state_dict(_first_blocks(lite).state_dict())

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Return the encoder's features after each of TAPS, without gradients."""
        found = []
        with torch.no_grad():
            x = F.relu6(self.stem(pictures))
            for number, block in enumerate(self.blocks):
                x = block(x)
                if number in TAPS:
                    found.append(x)
        return found

    def forward(self, pictures: Tensor) -> Tensor:
        found = self.features(pictures)
        x: Tensor | None = self.whole(found[-1].mean((2, 3)))[:, :, None, None]
        for level, features in zip(reversed(self.levels), reversed(found), strict=True):
            x = level(features, x)
        assert x is not None
        return F.interpolate(self.logits(x), pictures.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _first_blocks(lite: EfficientNetLite) -> nn.ModuleList:
    return nn.ModuleList(list(lite.blocks)[: TAPS[-1] + 1])


def normalized(pictures: Tensor) -> Tensor:
    """Return pictures (B, 3, H, W) with values in 0..1 as the encoder expects them."""
    mean, std = (torch.tensor(values, device=pictures.device).view(3, 1, 1) for values in (MEAN, STD))
    return (pictures - mean) / std


@lru_cache(maxsize=1)
def load_subject_masks(path: Path = WEIGHTS) -> SubjectMaskNetwork:
    """Return the bundled network. Raises ModelError for a damaged file."""
    network = SubjectMaskNetwork().eval()
    load_strict(network, path)
    return network


def subject_probabilities(
    pictures: Sequence[Image.Image], network: SubjectMaskNetwork | None = None
) -> list[NDArray[np.float32]]:
    """Return, for each RGB picture of any size, how likely each pixel is the subject's: (H, W) in 0..1."""
    network = network or load_subject_masks()
    found: list[NDArray[np.float32]] = []
    for start in range(0, len(pictures), BATCH):
        part = pictures[start : start + BATCH]
        small = [np.asarray(each.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) for each in part]
        values = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2) / 255
        with exact():
            for picture, logits in zip(part, network(normalized(values)), strict=True):
                size = (picture.height, picture.width)
                grown = F.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)
                found.append(grown[0, 0].sigmoid().numpy())
    return found


def subject_masks(pictures: Sequence[Image.Image]) -> list[Mask]:
    """Return the mask (H, W) of each picture's subject, true where it more likely is than not.

    A mask may be all false: the network saw no subject.
    """
    return [each >= 0.5 for each in subject_probabilities(pictures)]
