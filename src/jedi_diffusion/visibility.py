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

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, in shares of its width and height."""
KEPT_SHARE = 0.5
"""Share of a token's area that the mask, or a box, must cover for the token to be in it."""


class VisibleTokens(NamedTuple):
    """What of an image others read at one attention layer.

    places: int64, the numbers of its tokens, ascending; None for all. bias: added to their keys' scores. box:
    the part of a target that reads them, None for all of it. subject: see `Visibility`.
    """

    places: torch.Tensor | None
    bias: float
    box: Box | None = None
    subject: int | None = None

    def reads(self, other: VisibleTokens | None) -> bool:
        """Return whether an image of this kind reads another one: not one of another subject."""
        return other is None or self.subject == other.subject


@dataclass(frozen=True, eq=False)
class Visibility:
    """What the other images of a set read of an image; the image itself always reads all of itself.

    mask (H, W) float, 0 to 1, at any resolution: 1 on the subject; None for the whole image. strength: what
    the exponentials of its keys' scores are multiplied by, so that 2 counts every token twice; above 0.
    box: the part of targets that reads the image, and all that the image reads of them; None for all.
    subject: which one it shows, where a set has several; images of different subjects do not read each other.
    Raises UsageError for an empty mask, a strength that is not a number above 0, or a box that is not one
    within the picture.
    """

    mask: torch.Tensor | None = None
    strength: float = 1.0
    box: Box | None = None
    subject: int | None = None
    _known: dict[tuple[int, int, torch.device], VisibleTokens | None] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if not 0 < self.strength < math.inf:
            raise UsageError(f"strength is {self.strength}, but must be greater than 0.")
        if self.mask is not None and not bool((self.mask > 0).any()):
            raise UsageError("A mask is empty: nothing of its image would be read.")
        if self.box is not None:
            check_box(self.box)

    @property
    def is_whole(self) -> bool:
        """Whether all read all of the image, as it is."""
        return self.mask is None and self.strength == 1 and self.box is None and self.subject is None

    def at(self, grid: tuple[int, int], device: torch.device) -> VisibleTokens | None:
        """Return what is read at a layer of `grid`, (h, w); None where that is the whole image as it is.

        The mask is averaged over the area of each token; one is read where the mask covers at least
        KEPT_SHARE of it, and where it covers that much of none, those that it covers most.
        """
        key = (*grid, device)
        if key not in self._known:
            places = self._places(grid)
            whole = places is None or len(places) == grid[0] * grid[1]
            kept = None if whole or places is None else places.to(device)
            visible = VisibleTokens(kept, math.log(self.strength), self.box, self.subject)
            is_plain = whole and self.strength == 1 and self.box is None and self.subject is None
            self._known[key] = None if is_plain else visible
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


def check_box(box: Box) -> None:
    """Raise UsageError unless a box has an area and lies within the picture."""
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        said = ",".join(f"{each:g}" for each in box)
        raise UsageError(
            f"The region {said} is no part of a picture: left,top,right,bottom must lie between 0 and 1, "
            "left before right and top above bottom."
        )


def inside(box: Box, grid: tuple[int, int], device: torch.device | None = None) -> torch.Tensor:
    """Return which tokens of a grid (h, w) lie in a box, (h * w,) bool: those of whose area it covers at
    least KEPT_SHARE, and where it covers that much of none, those that it covers most.
    """
    left, top, right, bottom = box

    def shares(low: float, high: float, count: int) -> torch.Tensor:
        starts = torch.arange(count, dtype=torch.float64) / count
        return (torch.clamp(starts + 1 / count, max=high) - torch.clamp(starts, min=low)).clamp(min=0) * count

    covered = (shares(top, bottom, grid[0])[:, None] * shares(left, right, grid[1])).flatten()
    least = min(KEPT_SHARE, float(covered.max()))
    return (covered >= least - 1e-9).to(device)
