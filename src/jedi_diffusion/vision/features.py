"""What encoders of pictures share: preprocessing on Pillow, batches, exact arithmetic, rows of length 1.

Letters: B pictures; D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import torch

Rows = NDArray[Any]
BATCH = 32  # pictures in one forward


@dataclass(frozen=True)
class Preprocessing:
    """The shorter side to `resize` pixels, bicubic; the central `crop` x `crop`; then (x - mean) / std."""

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, picture: Image.Image) -> NDArray[np.float32]:
        """Return (3, crop, crop) of an RGB picture. Rounding of odd sizes is torchvision's."""
        width, height = picture.size
        shorter = min(width, height)
        size = (self.resize * width // shorter, self.resize * height // shorter)
        resized = picture.resize(size, Image.Resampling.BICUBIC)
        left, top = (round((side - self.crop) / 2) for side in size)
        cropped = resized.crop((left, top, left + self.crop, top + self.crop))
        values = np.asarray(cropped, np.float32) / 255
        normal = (values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return normal.astype(np.float32, copy=False).transpose(2, 0, 1)


def rows_of(
    pictures: Sequence[Image.Image],
    preprocessing: Preprocessing,
    forward: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device | str,
) -> Rows:
    """Return (B, D) float32: `forward` of the preprocessed pictures (B, 3, crop, crop), BATCH at a time."""
    import torch

    rows = []
    for start in range(0, len(pictures), BATCH):
        pixels = np.stack([preprocessing(each) for each in pictures[start : start + BATCH]])
        with exact():
            rows.append(forward(torch.from_numpy(pixels).to(device)).cpu().numpy())
    return np.concatenate(rows)


def exact() -> ExitStack:
    """No gradients, and no TF32 on GPUs, where convolutions use it by default."""
    import torch

    stack = ExitStack()
    stack.enter_context(torch.inference_mode())
    stack.enter_context(
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    )
    return stack


def unit_rows(rows: Rows) -> Rows:
    """Return rows of length 1, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
