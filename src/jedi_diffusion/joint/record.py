"""Where the tokens of a target look, recorded while it is sampled (section 3.2, Figure 5).

Letters as in `coupled_attention`, and: Q tokens of a target that are asked; P pictures that it sees, those of
a cache first; T their tokens, P * L; h, w the grid of a picture's tokens, L = h * w.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F

from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.cache import CachedTokens
from jedi_diffusion.joint.positions import Size, token_grid
from jedi_diffusion.visibility import VisibleTokens

GRID = 16
"""Tokens on a side that are asked, at most, beside the one at the point."""


class Correspondence(NamedTuple):
    """A token of the target, the token of picture `picture` that answers it, and the weight, 0 to 1."""

    token: int
    picture: int
    answer: int
    weight: float


class SeenImage(NamedTuple):
    """What a target sees of an image at a layer: keys (L, H, D) of all its tokens, their grid (h, w), and
    what is added to their scores (L,), minus infinity where they are not read."""

    keys: torch.Tensor
    size: Size
    bias: torch.Tensor


@dataclass(frozen=True)
class AttentionMap:
    """Where tokens of one target look at one resolution: means over heads, then over layers and steps.

    size: (h, w) of the target. tokens (Q,): numbers of the asked tokens, counted row by row: the one at the
    point, then a regular grid of at most GRID x GRID. weights (Q, P, h, w) float32: what each gives to every
    token of the pictures that it sees; a row sums to 1, less what captions get, which some families read in
    the same layers. Those pictures are, with coupling "joint", the set in order, with "cached" the
    references, then the target. own: the target's place among them. layers, steps: how many. sizes: the grid
    of each picture, where these differ; weights beyond it are 0.
    """

    size: Size
    tokens: tuple[int, ...]
    weights: torch.Tensor
    own: int
    layers: int
    steps: int
    sizes: tuple[Size, ...] = ()

    def size_of(self, picture: int) -> Size:
        """Return the grid of a picture's tokens."""
        return self.sizes[picture] if self.sizes else self.size

    def weights_of(self, picture: int) -> torch.Tensor:
        """Return what the asked tokens give to a picture's tokens, (Q, h, w) of its own grid."""
        height, width = self.size_of(picture)
        return self.weights[:, picture, :height, :width]

    def correspondences(self, pictures: Sequence[int], count: int) -> list[Correspondence]:
        """Return the `count` strongest mutual choices between the grid and these pictures' tokens, strongest
        first.

        Mutual: the answer gets the token's greatest weight, and from no other token of the grid more. A token
        that everything looks at is so an answer once.
        """
        rows = torch.cat([self.weights_of(picture)[1:].flatten(1) for picture in pictures], dim=1)
        places = [(picture, answer) for picture in pictures for answer in range(self._tokens_of(picture))]
        answers = rows.argmax(dim=1)
        asked = torch.arange(len(rows), device=rows.device)
        mutual = asked[rows.argmax(dim=0)[answers] == asked]
        strongest = mutual[rows[mutual, answers[mutual]].argsort(descending=True, stable=True)][:count]
        return [
            Correspondence(
                self.tokens[1 + row], *places[int(answers[row])], weight=float(rows[row, answers[row]])
            )
            for row in strongest.tolist()
        ]

    def _tokens_of(self, picture: int) -> int:
        height, width = self.size_of(picture)
        return height * width


@dataclass
class _Sum:
    """What has been added up for a target at a resolution. sizes: the grid of each picture that it sees."""

    sizes: tuple[Size, ...]
    own: int
    weights: torch.Tensor
    layers: set[str] = field(default_factory=set)
    steps: set[int] = field(default_factory=set)
    passes: int = 0


class AttentionRecord:
    """What one call of the sampler records: the attention of chosen tokens, never a whole attention matrix.

    point: (x, y) in a target, fractions 0 to 1 from its top left. steps: numbers of the steps that count,
    from 0 on; None for all. The caller owns the record; recording changes nothing in what is sampled.
    Raises UsageError for a point outside the picture.
    """

    def __init__(self, point: tuple[float, float], steps: Container[int] | None = None) -> None:
        if not all(0 <= place <= 1 for place in point):
            raise UsageError(
                f"The point {point} lies outside the picture; x and y are fractions from 0 to 1."
            )
        self.point = point
        self.steps = steps
        self._seen: set[int] = set()
        self._sums: dict[tuple[int, int], _Sum] = {}

    def writer(self, step: int, rows: Sequence[int], size: Size) -> AttentionWriter | None:
        """Return what takes the attention of one forward, whose pictures `rows` are the targets; None: not
        asked.

        size: height and width of the latents. Raises UsageError for a step that is there already: another
        call would be mixed in.
        """
        if step in self._seen:
            raise UsageError("This attention record already holds a call; make a new one for each.")
        self._seen.add(step)
        if self.steps is not None and step not in self.steps:
            return None
        return AttentionWriter(self, step, tuple(rows), size)

    def maps(self, target: int = 0) -> list[AttentionMap]:
        """Return the maps of target number `target`, finest resolution first.

        Raises UsageError if it has none.
        """
        found = [each for (number, _), each in sorted(self._sums.items(), reverse=True) if number == target]
        if not found:
            raise UsageError(f"No attention of target {target} has been recorded.")
        return [
            AttentionMap(
                size=each.sizes[each.own],
                tokens=asked_tokens(self.point, each.sizes[each.own]),
                weights=each.weights / each.passes,
                own=each.own,
                layers=len(each.layers),
                steps=len(each.steps),
                sizes=each.sizes if len(set(each.sizes)) > 1 else (),
            )
            for each in found
        ]


class AttentionWriter:
    """Adds the layers of one forward to a record."""

    def __init__(self, record: AttentionRecord, step: int, rows: tuple[int, ...], size: Size) -> None:
        self._record = record
        self._step = step
        self._rows = rows
        self._size = size

    @torch.no_grad()
    def store(
        self,
        layer: str,
        query: torch.Tensor,
        key: torch.Tensor,
        set_sizes: Sequence[int],
        references: Sequence[CachedTokens | None] | None,
        bias: torch.Tensor | None = None,
        visible: Sequence[VisibleTokens | None] | None = None,
        captions: torch.Tensor | None = None,
    ) -> None:
        """Add a layer: key (I, L, H, D), and query (I, L, H, D), which may go on with those of captions.

        references: for each set what it reads from a cache. bias (H, L, L): what the layer adds to the scores
        of every two pictures. visible (I,): what others read of each image; tokens that nobody reads get no
        weight. captions (I, K, H, D): keys of the text that each image alone sees.
        """
        size = token_grid(self._size, key.shape[1])
        for row in self._rows:
            number, start = _set_of(row, set_sizes)
            seen = []
            for other in range(start, start + set_sizes[number]):
                shown = None if visible is None or other == row else visible[other]
                seen.append(seen_image(key[other], size, shown))
            cached = None if references is None else references[number]
            before = [] if cached is None else cached_images(cached, size)
            text = None if captions is None else captions[row]
            self.look(layer, row, query[row], [*before, *seen], len(before) + row - start, text, bias)

    @torch.no_grad()
    def look(
        self,
        layer: str,
        row: int,
        query: torch.Tensor,
        seen: Sequence[SeenImage],
        own: int,
        captions: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
    ) -> None:
        """Add where a target looks at a layer; nothing for an image that is no target.

        row: its number in the batch. query: of its tokens, (L, H, D), and maybe more. seen: the images that
        it sees, itself as number `own`. captions (K, H, D): keys of text beside them. bias: as in `store`.
        """
        if row not in self._rows:
            return
        size = seen[own].size
        asked = list(asked_tokens(self._record.point, size))
        text = query[:0] if captions is None else captions
        keys = torch.cat([*(image.keys for image in seen), text])
        added = F.pad(torch.cat([image.bias for image in seen]), (0, len(text)))
        added = added.expand(query.shape[1], len(asked), -1)
        if bias is not None:
            added = added + bias[:, asked].repeat(1, 1, len(seen))
        weights = attention_weights(query[asked], keys, added)[:, : len(keys) - len(text)]
        sizes = tuple(image.size for image in seen)
        height, width = (max(each[axis] for each in sizes) for axis in (0, 1))
        parts = weights.split([len(image.keys) for image in seen], dim=1)
        grids = [
            F.pad(part.unflatten(1, each), (0, width - each[1], 0, height - each[0]))
            for part, each in zip(parts, sizes, strict=True)
        ]
        found = _Sum(sizes, own, torch.stack(grids, dim=1))
        self._add(self._rows.index(row), size[0] * size[1], found, layer)

    def _add(self, target: int, tokens: int, new: _Sum, layer: str) -> None:
        total = self._record._sums.setdefault((target, tokens), new)
        if total is not new:
            total.weights += new.weights
        total.passes += 1
        total.layers.add(layer)
        total.steps.add(self._step)


def seen_image(keys: torch.Tensor, size: Size, read: VisibleTokens | None) -> SeenImage:
    """Return an image of a set as a target sees it: keys (L, H, D), their grid, what of them is read."""
    bias = torch.zeros(len(keys), device=keys.device)
    if read is not None and read.places is None:
        bias += read.bias
    elif read is not None:
        bias.fill_(-math.inf)
        bias[read.places] = read.bias
    return SeenImage(keys, size, bias)


def cached_images(read: CachedTokens, size: Size = (0, 0)) -> list[SeenImage]:
    """Return what a target sees of references in a cache; keys that are not kept are zero.

    size: their grid, where it is the same for all.
    """
    keys = read.keys.flatten(0, 1)
    kept = torch.arange(len(keys), device=keys.device) if read.places is None else read.places
    total = read.total or len(keys)
    whole = keys.new_zeros(total, *keys.shape[1:])
    whole[kept] = keys
    bias = torch.full((total,), -math.inf, device=keys.device)
    bias[kept] = 0.0 if read.bias is None else read.bias.float()
    sizes = read.sizes or (size,) * (total // max(1, size[0] * size[1]))
    lengths = [height * width for height, width in sizes]
    parts = zip(whole.split(lengths), sizes, bias.split(lengths), strict=True)
    return [SeenImage(*part) for part in parts]


def attention_weights(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(q k' / sqrt(D) + bias) as a mean over heads: (Q, H, D), (T, H, D) -> (Q, T) float32.

    bias: (H, Q, T), or none. Head by head, so that no more than Q * T numbers of each kind are held.
    """
    heads, scale = query.shape[1], query.shape[2] ** -0.5
    mean = torch.zeros(len(query), len(key), device=query.device)
    for head in range(heads):
        scores = query[:, head].float() @ key[:, head].float().T * scale
        mean += (scores if bias is None else scores + bias[head]).softmax(dim=-1)
    return mean / heads


def asked_tokens(point: tuple[float, float], size: Size) -> tuple[int, ...]:
    """Return numbers of the token under the point, then of a regular grid of at most GRID x GRID tokens."""
    height, width = size
    column, row = (
        min(int(place * side), side - 1) for place, side in zip(point, (width, height), strict=True)
    )
    return (row * width + column, *(y * width + x for y in _spread(height) for x in _spread(width)))


def _spread(side: int) -> range:
    """At most GRID numbers below `side`, evenly apart, as far from one edge as from the other."""
    apart = -(-side // GRID)
    return range((side - 1) % apart // 2, side, apart)


def _set_of(row: int, set_sizes: Sequence[int]) -> tuple[int, int]:
    """Return the number of the set that holds picture `row`, and the number of its first picture."""
    start = 0
    for number, size in enumerate(set_sizes):
        if row < start + size:
            return number, start
        start += size
    raise UsageError(f"The batch has {start} pictures, so there is no target in row {row}.")
