"""EfficientNet-Lite: EfficientNet (Tan and Le, 2019) with ReLU6 and without squeeze-and-excitation.

Batch normalization is folded into the convolution before it, which is faster, so the network is for use, not
for training. Letters: B pictures; C channels; H, W pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 1280
CLASSES = 1000
NORM_EPSILON = 1e-3


class Stage(NamedTuple):
    """Blocks at one resolution: number, kernel's side, stride of the first, widening, channels out."""

    blocks: int
    kernel: int
    stride: int
    widening: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM = 32


class SameConvolution(nn.Conv2d):
    """A convolution with TensorFlow's padding "SAME": ceil(H / stride) rows out, an odd row of zeros last."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        (kernel, stride), sides = (self.kernel_size[0], self.stride[0]), x.shape[-2:]
        down, across = (max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in sides)
        if down % 2 or across % 2:
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
            down = across = 0
        padding = (down // 2, across // 2)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)


class Block(nn.Module):
    """An inverted residual: widen, filter each channel, project; added to its input where shapes agree."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        wide = before * widening
        self.expand = SameConvolution(before, wide) if widening > 1 else None
        self.depthwise = SameConvolution(wide, wide, kernel, stride, groups=wide)
        self.project = SameConvolution(wide, after)
        self.is_residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(wide)))
        return x + out if self.is_residual else out


class EfficientNetLite(nn.Module):
    """width and depth scale channels and blocks (lite0: 1, 1; lite2: 1.1, 1.2), but not stem and head."""

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        self.stem = SameConvolution(3, STEM, 3, stride=2)
        blocks, before = [], STEM
        for number, stage in enumerate(STAGES):
            fixed = number in (0, len(STAGES) - 1)
            count = stage.blocks if fixed else math.ceil(depth * stage.blocks)
            after = scaled_channels(stage.channels, width)
            for place in range(count):
                stride = 1 if place else stage.stride
                blocks.append(Block(before, after, stage.kernel, stride, stage.widening))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConvolution(before, FEATURES)
        self.classes = nn.Linear(FEATURES, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the pooled features (B, FEATURES) of (B, 3, H, W); `classes` makes logits of them."""
        x = self.blocks(F.relu6(self.stem(pictures)))
        return F.relu6(self.head(x)).mean((2, 3))


def scaled_channels(channels: int, width: float) -> int:
    """Return channels * width as a multiple of 8, never more than 10% below it."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def folded(state: dict[str, Tensor], network: EfficientNetLite) -> dict[str, Tensor]:
    """Return weights for `network` from a state dict of efficientnet-lite-pytorch, normalizations folded in.

    Raises KeyError for a name that is missing.
    """
    names = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for number, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        theirs = f"_blocks.{number}"
        if block.expand is not None:
            names[f"blocks.{number}.expand"] = (f"{theirs}._expand_conv", f"{theirs}._bn0")
        names[f"blocks.{number}.depthwise"] = (f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        names[f"blocks.{number}.project"] = (f"{theirs}._project_conv", f"{theirs}._bn2")
    out = {"classes.weight": state["_fc.weight"], "classes.bias": state["_fc.bias"]}
    for ours, (convolution, norm) in names.items():
        scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + NORM_EPSILON)
        out[f"{ours}.weight"] = state[f"{convolution}.weight"] * scale[:, None, None, None]
        out[f"{ours}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return {name: tensor.contiguous() for name, tensor in out.items()}
