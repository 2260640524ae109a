"""Where a layer's tokens lie in the picture, and attention that prefers near positions.

Letters: L tokens a picture, h * w; H heads.
"""

import torch

from jedi_diffusion.errors import UsageError

Size = tuple[int, int]


def token_grid(latents: Size, tokens: int) -> Size:
    """(h, w) of a layer with so many tokens, in a UNet that halves latents (height, width), rounding up.

    Raises UsageError if no number of halvings gives as many.
    """
    height, width = latents
    while height * width > tokens:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != tokens:
        raise UsageError(
            f"An attention layer has {tokens} tokens, which is no halving of the {latents[0]}x{latents[1]} "
            "latents; where its tokens lie in the picture is unknown."
        )
    return height, width


def distance_bias(size: Size, heads: int, slope: float, device: torch.device | None = None) -> torch.Tensor:
    """Return what is added to the scores of two pictures' tokens that lie apart: (H, L, L) float32, 0 or
    less.

    Linear biases (Press et al., "Train Short, Test Long", 2022) on a grid: head k adds -slope / 2^k times the
    tokens' distance, in tokens of the grid `size`, (h, w); the last head adds nothing. The distance
    is the same whether both tokens lie in one picture or in two of a set, so that a target finds what lies at
    its own place in a reference before it has learned anything.
    """
    height, width = size
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1).float()
    apart = (places[:, None] - places).square().sum(-1).sqrt()
    slopes = slope * 0.5 ** torch.arange(heads, device=device, dtype=torch.float32)
    slopes[-1] = 0
    return -slopes.view(-1, 1, 1) * apart
