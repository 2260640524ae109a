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
from jedi_diffusion.visibility import VisibleTokens


class _Piece(NamedTuple):
    """Some tokens of an image or a cache, keys and values (tokens, H, D), as one more part of what is read.

    places (tokens,): their numbers among the tokens that they were chosen from; None for all, in order. bias:
    of each, or of all.
    """

    keys: torch.Tensor
    values: torch.Tensor
    places: torch.Tensor | None = None
    bias: torch.Tensor | float | None = None


class _Reading(NamedTuple):
    """Images of a set, by their numbers in the batch, that read the same: these pieces, one after another."""

    images: tuple[int, ...]
    pieces: list[_Piece]

    @property
    def shape(self) -> tuple[int, int, bool]:
        """What readings that share an attention call agree in."""
        tokens = sum(len(piece.keys) for piece in self.pieces)
        return len(self.images), tokens, any(piece.bias is not None for piece in self.pieces)

    def bias(self, distance: torch.Tensor | None, device: torch.device, length: int) -> torch.Tensor | None:
        """Return what is added to scores: (H, images * L, T), or (1, 1, T) without distance, or None."""
        made = None
        if self.shape[2]:
            parts = [
                torch.zeros(len(keys), device=device) + (0.0 if bias is None else bias)
                for keys, _, _, bias in self.pieces
            ]
            made = torch.cat(parts)[None, None]
        if distance is None:
            return made
        columns = [_columns(distance, len(keys) // length, places) for keys, _, places, _ in self.pieces]
        apart = _tiled(torch.cat(columns, dim=-1), len(self.images), dim=1)
        return apart if made is None else apart + made


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
) -> torch.Tensor:
    """`coupled_attention` where others read a part of an image, or with a strength: (I, L, H, D) -> the same.

    visible (I,): what others read of each image, None for all of it; an image itself reads all of itself, as
    it is. references: what each set reads of a cache. Images that read the same share one attention call, and
    so do those of several sets that read as many tokens.
    """
    given = None if is_reference is None else is_reference.tolist()
    shown = visible or [None] * len(key)
    calls: dict[tuple[int, int, bool], list[_Reading]] = {}
    start = 0
    for number, size in enumerate(set_sizes):
        rows = range(start, start + size)
        start += size
        first = [] if references is None else _cached_pieces(references[number])
        readers: dict[tuple[tuple[int, ...], int | None], list[int]] = {}
        for row in rows:
            others = tuple(each for each in rows if each == row or given is None or given[each])
            alone = shown[row] is not None or private is not None
            readers.setdefault((others, row if alone else None), []).append(row)
        for (others, whole), images in readers.items():
            own = [_piece(key[each], value[each], None if each == whole else shown[each]) for each in others]
            reading = _Reading(tuple(images), first + own)
            calls.setdefault(reading.shape, []).append(reading)
    order = [image for readings in calls.values() for each in readings for image in each.images]
    made = [_read(query, readings, key.shape[1], bias, backend, private) for readings in calls.values()]
    mixed = made[0] if len(made) == 1 else torch.cat(made)
    if order == list(range(len(query))):
        return mixed
    return mixed[sorted(range(len(order)), key=order.__getitem__)]


def _cached_pieces(cached: CachedTokens | None) -> list[_Piece]:
    if cached is None:
        return []
    return [_Piece(cached.keys.flatten(0, 1), cached.values.flatten(0, 1), cached.places, cached.bias)]


def _piece(keys: torch.Tensor, values: torch.Tensor, visible: VisibleTokens | None) -> _Piece:
    """Return what of an image (L, H, D) is read."""
    if visible is None:
        return _Piece(keys, values)
    places, bias = visible.places, visible.bias or None
    if places is None:
        return _Piece(keys, values, None, bias)
    return _Piece(keys[places], values[places], places, bias)


def _read(
    query: torch.Tensor,
    readings: Sequence[_Reading],
    length: int,
    distance: torch.Tensor | None,
    backend: AttentionBackendName | None,
    private: Pair | None,
) -> torch.Tensor:
    """Return attention of readings of one shape, in one call: (images of all, L, H, D)."""
    images = [image for each in readings for image in each.images]
    pieces = [piece for each in readings for piece in each.pieces]
    parts = [piece.keys for piece in pieces], [piece.values for piece in pieces]
    keys, values = (torch.cat(each).unflatten(0, (len(readings), -1)) for each in parts)
    biases = [each.bias(distance, query.device, length) for each in readings]
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
