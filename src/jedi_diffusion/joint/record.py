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


@dataclass(frozen=True)
class AttentionMap:
    """Where tokens of one target look at one resolution: means over heads, then over layers and steps.

    size: (h, w). tokens (Q,): numbers of the asked tokens, counted row by row: the one at the point, then a
    regular grid of at most GRID x GRID. weights (Q, P, h, w) float32: what each gives to every token of the
    pictures that it sees; a row sums to 1. Those pictures are, with coupling "joint", the set in order, with
    "cached" the references, then the target. own: the target's place among them. layers, steps: how many.
    """

    size: Size
    tokens: tuple[int, ...]
    weights: torch.Tensor
    own: int
    layers: int
    steps: int

    def correspondences(self, pictures: Sequence[int], count: int) -> list[Correspondence]:
        """Return the `count` strongest mutual choices between the grid and these pictures' tokens, strongest
        first.

        Mutual: the answer gets the token's greatest weight, and from no other token of the grid more. A token
        that everything looks at is so an answer once.
        """
        rows = self.weights[1:, list(pictures)].flatten(1)
        answers = rows.argmax(dim=1)
        asked = torch.arange(len(rows), device=rows.device)
        mutual = asked[rows.argmax(dim=0)[answers] == asked]
        strongest = mutual[rows[mutual, answers[mutual]].argsort(descending=True, stable=True)][:count]
        tokens = rows.shape[1] // len(pictures)
        return [
            Correspondence(
                token=self.tokens[1 + row],
                picture=pictures[int(answers[row]) // tokens],
                answer=int(answers[row]) % tokens,
                weight=float(rows[row, answers[row]]),
            )
            for row in strongest.tolist()
        ]


@dataclass
class _Sum:
    """What has been added up for a target at a resolution."""

    size: Size
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
                size=each.size,
                tokens=asked_tokens(self.point, each.size),
                weights=(each.weights / each.passes).unflatten(1, (-1, *each.size)),
                own=each.own,
                layers=len(each.layers),
                steps=len(each.steps),
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
    ) -> None:
        """Add a layer: query, key (I, L, H, D); references: for each set what it reads from a cache.

        bias (H, L, L): what the layer adds to the scores of every two pictures. visible (I,): what others
        read of each image; tokens that nobody reads get no weight.
        """
        tokens = query.shape[1]
        size = token_grid(self._size, tokens)
        asked = list(asked_tokens(self._record.point, size))
        for target, row in enumerate(self._rows):
            number, start = _set_of(row, set_sizes)
            own_set = range(start, start + set_sizes[number])
            seen = [key[start : start + set_sizes[number]]]
            shown = [None if visible is None or other == row else visible[other] for other in own_set]
            biases = [_key_bias(tokens, key, each) for each in shown]
            cached = None if references is None else references[number]
            if cached is not None:
                seen.insert(0, _in_images(cached, tokens))
                biases.insert(0, _key_bias(len(seen[0]) * tokens, key, cached))
            keys = torch.cat(seen)
            added = torch.cat(biases).expand(query.shape[2], len(asked), -1)
            if bias is not None:
                added = added + bias[:, asked].repeat(1, 1, len(keys))
            weights = attention_weights(query[row, asked], keys.flatten(0, 1), added)
            own = len(keys) - set_sizes[number] + row - start
            self._add(target, tokens, _Sum(size, own, weights), layer)

    def _add(self, target: int, tokens: int, new: _Sum, layer: str) -> None:
        total = self._record._sums.setdefault((target, tokens), new)
        if total is not new:
            total.weights += new.weights
        total.passes += 1
        total.layers.add(layer)
        total.steps.add(self._step)


def _key_bias(tokens: int, like: torch.Tensor, read: VisibleTokens | CachedTokens | None) -> torch.Tensor:
    """(tokens,): what is added to the scores of so many keys, minus infinity where they are not read."""
    made = torch.zeros(tokens, device=like.device)
    if read is None:
        return made
    bias = 0.0 if read.bias is None else read.bias
    if read.places is None:
        return made + bias
    made.fill_(-math.inf)
    made[read.places] = torch.as_tensor(bias, device=like.device).float()
    return made


def _in_images(cached: CachedTokens, length: int) -> torch.Tensor:
    """Return cached keys as those of whole images (R, L, H, D), zero where they are not kept."""
    if cached.places is None:
        return cached.keys
    made = cached.keys.new_zeros(cached.total, *cached.keys.shape[2:])
    made[cached.places] = cached.keys[0]
    images: torch.Tensor = made.unflatten(0, (-1, length))
    return images


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
