"""How an image is read by the others of its set: which of its tokens, and how strongly.

Letters: H, W the sides of a mask; h, w the grid of an attention layer's tokens, L = h * w of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F

from jedi_diffusion.errors import UsageError

KEPT_SHARE = 0.5
"""Share of a token's area that the mask must cover for the token to be read."""


class VisibleTokens(NamedTuple):
    """What of an image others read at one attention layer.

    places: int64, the numbers of its tokens, ascending; None for all. bias: added to their keys' scores.
    """

    places: torch.Tensor | None
    bias: float


@dataclass(frozen=True, eq=False)
class Visibility:
    """What the other images of a set read of an image; the image itself always reads all of itself.

    mask (H, W) float, 0 to 1, at any resolution: 1 on the subject; None for the whole image. strength: what
    the exponentials of its keys' scores are multiplied by, so that 2 counts every token twice; above 0.
    Raises UsageError for an empty mask, or a strength that is not a number above 0.
    """

    mask: torch.Tensor | None = None
    strength: float = 1.0
    _known: dict[tuple[int, int, torch.device], VisibleTokens | None] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if not 0 < self.strength < math.inf:
            raise UsageError(f"strength is {self.strength}, but must be greater than 0.")
        if self.mask is not None and not bool((self.mask > 0).any()):
            raise UsageError("A mask is empty: nothing of its image would be read.")

    def at(self, grid: tuple[int, int], device: torch.device) -> VisibleTokens | None:
        """Return what is read at a layer of `grid`, (h, w); None where that is the whole image as it is.

        The mask is averaged over the area of each token; one is read where the mask covers at least
        KEPT_SHARE of it, and where it covers that much of none, those that it covers most.
        """
        key = (*grid, device)
        if key not in self._known:
            places = self._places(grid)
            whole = places is None or len(places) == grid[0] * grid[1]
            visible = VisibleTokens(
                None if whole or places is None else places.to(device), math.log(self.strength)
            )
            self._known[key] = None if whole and self.strength == 1 else visible
        return self._known[key]

    def _places(self, grid: tuple[int, int]) -> torch.Tensor | None:
        """Return the numbers of the tokens that are read, ascending; None for all."""
        if self.mask is None:
            return None
        shares = F.adaptive_avg_pool2d(self.mask.float()[None], grid).flatten()
        return torch.nonzero(shares >= min(KEPT_SHARE, float(shares.max()))).flatten()


@dataclass(frozen=True, eq=False)
class DrawnVisibility(Visibility):
    """A random part of an image's tokens, drawn for each grid by itself: what training drops.

    share: the part that is kept, above 0 to 1; at least one token is. seed: decides which. Raises UsageError.
    """

    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise UsageError(f"share is {self.share}, but must be above 0 and at most 1.")

    def _places(self, grid: tuple[int, int]) -> torch.Tensor | None:
        tokens = grid[0] * grid[1]
        kept = max(1, round(self.share * tokens))
        return torch.randperm(tokens, generator=torch.Generator().manual_seed(self.seed))[:kept].sort().values
