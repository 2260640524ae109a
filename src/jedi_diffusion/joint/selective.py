"""Coupled attention where images read parts of each other, or some more than others.

What is not read is left out before attention, so that it costs nothing there.
Letters as in `coupled_attention`: I images in the batch; L tokens an image; H heads; D features a head; T
keys that a query sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

from jedi_diffusion.joint.cache import CachedTokens, Pair
from jedi_diffusion.joint.positions import Size
from jedi_diffusion.visibility import Box, VisibleTokens, inside


class _Piece(NamedTuple):
    """Some tokens of an image or a cache, keys and values (tokens, H, D), as one more part of what is read.

    places (tokens,): their numbers among the tokens that they were chosen from; None for all, in order. bias:
    of each, or of all. box: the part of the reading images that reads them; None for all.
    """

    keys: torch.Tensor
    values: torch.Tensor
    places: torch.Tensor | None = None
    bias: torch.Tensor | float | None = None
    box: Box | None = None


class _Reading(NamedTuple):
    """Images of a set, by their numbers in the batch, that read the same: these pieces, one after another."""

    images: tuple[int, ...]
    pieces: list[_Piece]

    @property
    def shape(self) -> tuple[int, int, bool, bool]:
        """What readings that share an attention call agree in."""
        tokens = sum(len(piece.keys) for piece in self.pieces)
        has_box = any(piece.box is not None for piece in self.pieces)
        has_bias = has_box or any(piece.bias is not None for piece in self.pieces)
        return len(self.images), tokens, has_bias, has_box

    def bias(
        self, distance: torch.Tensor | None, device: torch.device, grid: Size, queries: int
    ) -> torch.Tensor | None:
        """Return what is added to scores: (H, images * queries, T), with 1 in place of H without distance,
        and of both without boxes too; None for nothing. queries: L, and the tokens of text after them.
        """
        made = None
        if self.shape[2]:
            parts = [
                torch.zeros(len(piece.keys), device=device) + (0.0 if piece.bias is None else piece.bias)
                for piece in self.pieces
            ]
            made = torch.cat(parts)[None, None]
            if self.shape[3]:
                made = made + _tiled(self._hidden(grid, queries, device), len(self.images), dim=0)[None]
        if distance is None:
            return made
        length = grid[0] * grid[1]
        columns = [_columns(distance, len(each.keys) // length, each.places) for each in self.pieces]
        apart = _tiled(torch.cat(columns, dim=-1), len(self.images), dim=1)
        return apart if made is None else apart + made

    def _hidden(self, grid: Size, queries: int, device: torch.device) -> torch.Tensor:
        """Return (queries, T): minus infinity where a query lies outside of the box of a key, or is text."""
        parts = []
        for piece in self.pieces:
            reads = torch.ones(queries, dtype=torch.bool, device=device)
            if piece.box is not None:
                reads = F.pad(inside(piece.box, grid, device), (0, queries - grid[0] * grid[1]))
            column = torch.zeros(queries, device=device).masked_fill(~reads, float("-inf"))
            parts.append(column[:, None].expand(-1, len(piece.keys)))
        return torch.cat(parts, dim=1)


def _columns(distance: torch.Tensor, images: int, places: torch.Tensor | None) -> torch.Tensor:
    """Return (H, L, tokens): the distance bias of the tokens at these places, or of all of so many images."""
    return _tiled(distance, images, dim=2) if places is None else distance[:, :, places % distance.shape[2]]


def _tiled(bias: torch.Tensor, times: int, dim: int) -> torch.Tensor:
    """Return a bias so many times along a dimension; once is the bias itself, not a copy."""
    return bias if times == 1 else torch.cat([bias] * times, dim=dim)


def selective_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    set_sizes: Sequence[int],
    visible: Sequence[VisibleTokens | None] | None,
    references: Sequence[CachedTokens | None] | None = None,
    is_reference: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    backend: AttentionBackendName | None = None,
    private: Pair | None = None,
    grid: Size | None = None,
) -> torch.Tensor:
    """`coupled_attention` where others read a part of an image, or with a strength: (I, L, H, D) -> the same.

    visible (I,): what others read of each image, None for all of it; an image itself reads all of itself, as
    it is. references: what each set reads of a cache. grid: of an image's tokens, which boxes need. Images
    that read the same share one attention call, and so do those of several sets that read as many tokens.
    """
    given = None if is_reference is None else is_reference.tolist()
    shown = visible or [None] * len(key)
    calls: dict[tuple[int, int, bool, bool], list[_Reading]] = {}
    start = 0
    for number, size in enumerate(set_sizes):
        rows = range(start, start + size)
        start += size
        first = [] if references is None else _cached_pieces(references[number])
        readers: dict[tuple[tuple[int, ...], int | None], list[int]] = {}
        for row in rows:
            own_kind = shown[row]
            others = tuple(
                each
                for each in rows
                if each == row
                or ((given is None or given[each]) and (own_kind is None or own_kind.reads(shown[each])))
            )
            alone = shown[row] is not None or private is not None
            readers.setdefault((others, row if alone else None), []).append(row)
        for (others, whole), images in readers.items():
            reader = None if whole is None else shown[whole]
            own = [
                _Piece(key[each], value[each])
                if each == whole
                else _piece(key[each], value[each], shown[each], reader, grid)
                for each in others
            ]
            reading = _Reading(tuple(images), first + own)
            calls.setdefault(reading.shape, []).append(reading)
    order = [image for readings in calls.values() for each in readings for image in each.images]
    grid = grid or (1, key.shape[1])
    made = [_read(query, readings, grid, bias, backend, private) for readings in calls.values()]
    mixed = made[0] if len(made) == 1 else torch.cat(made)
    if order == list(range(len(query))):
        return mixed
    return mixed[sorted(range(len(order)), key=order.__getitem__)]


def _cached_pieces(cached: CachedTokens | None) -> list[_Piece]:
    if cached is None:
        return []
    whole = _Piece(cached.keys.flatten(0, 1), cached.values.flatten(0, 1), cached.places, cached.bias)
    pieces, start = [], 0
    for count, box in cached.spans:
        part = slice(start, start + count)
        places, bias = (None if each is None else each[part] for each in (cached.places, cached.bias))
        pieces.append(_Piece(whole.keys[part], whole.values[part], places, bias, box))
        start += count
    return pieces or [whole]


def _piece(
    keys: torch.Tensor,
    values: torch.Tensor,
    visible: VisibleTokens | None,
    reader: VisibleTokens | None,
    grid: Size | None,
) -> _Piece:
    """Return what of an image (L, H, D) is read by one that others read as `reader` says."""
    if visible is None and reader is not None and reader.box is not None and grid is not None:
        places = torch.nonzero(inside(reader.box, grid, keys.device)).flatten()
        return _Piece(keys[places], values[places], places)
    if visible is None:
        return _Piece(keys, values)
    bias, box = visible.bias or None, visible.box if reader is None else None
    if visible.places is None:
        return _Piece(keys, values, None, bias, box)
    return _Piece(keys[visible.places], values[visible.places], visible.places, bias, box)


def _read(
    query: torch.Tensor,
    readings: Sequence[_Reading],
    grid: Size,
    distance: torch.Tensor | None,
    backend: AttentionBackendName | None,
    private: Pair | None,
) -> torch.Tensor:
    """Return attention of readings of one shape, in one call: (images of all, L, H, D)."""
    images = [image for each in readings for image in each.images]
    pieces = [piece for each in readings for piece in each.pieces]
    parts = [piece.keys for piece in pieces], [piece.values for piece in pieces]
    keys, values = (torch.cat(each).unflatten(0, (len(readings), -1)) for each in parts)
    biases = [each.bias(distance, query.device, grid, query.shape[1]) for each in readings]
    added = [each for each in biases if each is not None]
    mask = None
    if added:
        mask = (added[0][None] if len(added) == 1 else torch.stack(added)).to(query.dtype)
    if private is not None:
        keys, values = (
            torch.cat([each, own[images]], 1) for each, own in zip((keys, values), private, strict=True)
        )
        mask = None if mask is None else F.pad(mask, (0, private[0].shape[1]))
    asked = query if images == list(range(len(query))) else query[images]
    queries = asked.unflatten(0, (len(readings), -1)).flatten(1, 2)
    mixed = dispatch_attention_fn(queries, keys, values, attn_mask=mask, backend=backend)
    return mixed.reshape(len(images), *query.shape[1:])
