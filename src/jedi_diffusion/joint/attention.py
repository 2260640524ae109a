"""Coupled self-attention: every token of a set attends to every token of the same set (section 3.2, Fig. 6).

Letters: S sets; N pictures in a set; I pictures in the batch (sum of all N); R references that a set reads
from a cache; L tokens a picture; H heads; D features a head; C = H * D; G sets of one shape, which share an
attention call; T keys that each query of such a set sees, (R + N) * L.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.cache import CachedTokens, CacheView, CacheWriter, Pair
from jedi_diffusion.joint.positions import Size, distance_bias, token_grid
from jedi_diffusion.joint.record import AttentionWriter
from jedi_diffusion.joint.selective import selective_attention
from jedi_diffusion.visibility import Visibility, VisibleTokens


@dataclass(frozen=True)
class SetReads:
    """Which images read which in one forward pass of a network; every attention layer gets the same.

    set_sizes: N of every set, in order; None: each image is a set of its own. cache: a writer keeps this
    pass's keys and values, a view adds those of references to what each set sees. record: takes down where
    targets look; the result is the same. grid: height and width of the latents, which attention by position
    needs. is_reference (I,) bool: see `coupled_attention`. visibility (I,): what others read of each image;
    None: all of it. layers: names of those that couple, None for all; in others each image reads itself.
    """

    set_sizes: tuple[int, ...] | None = None
    cache: CacheWriter | CacheView | None = None
    record: AttentionWriter | None = None
    grid: Size | None = None
    is_reference: torch.Tensor | None = None
    visibility: tuple[Visibility | None, ...] | None = None
    layers: frozenset[str] | None = None

    def attend(
        self,
        layer: str,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        distance_slope: float = 0.0,
        backend: AttentionBackendName | None = None,
        private: Pair | None = None,
    ) -> torch.Tensor:
        """Return coupled attention at a layer: (I, L, H, D) three times -> (I, L, H, D).

        layer: its name in the cache. distance_slope: see `positions.distance_bias`; above 0, tokens at near
        positions are preferred. backend, private: see `coupled_attention`. Raises UsageError for sizes that
        do not add up to I, a cache that does not fit, or a grid that is missing.
        """
        sizes = self._checked_sizes(images=query.shape[0])
        bias = None
        if distance_slope:
            bias = distance_bias(self._tokens(query), query.shape[2], distance_slope, query.device)
        if self.layers is not None and layer not in self.layers:
            alone = (1,) * len(query)
            return coupled_attention(query, key, value, alone, None, None, bias, backend, private)
        visible = self._visible(key)
        references = None
        if isinstance(self.cache, CacheWriter):
            self.cache.store(layer, key, value, visible)
        elif self.cache is not None:
            references = self.cache.read(layer, like=key)
        if self.record is not None:
            captions = None if private is None else private[0]
            self.record.store(layer, query, key, sizes, references, bias, visible, captions)
        is_partial = any(read is not None and read.places is not None for read in references or ())
        if visible is None and not is_partial:
            return coupled_attention(
                query, key, value, sizes, references, self.is_reference, bias, backend, private
            )
        boxes = [each.box for each in visible or () if each is not None and each.box is not None]
        has_box = bool(boxes) or any(read is not None and read.spans for read in references or ())
        grid = self._tokens(key) if has_box else None
        return selective_attention(
            query, key, value, sizes, visible, references, self.is_reference, bias, backend, private, grid
        )

    def _visible(self, key: torch.Tensor) -> list[VisibleTokens | None] | None:
        """Return what others read of each image at a layer with such keys; None where that is all of all."""
        if self.visibility is None or not any(self.visibility):
            return None
        grid = self._tokens(key)
        made = [None if each is None else each.at(grid, key.device) for each in self.visibility]
        return made if any(made) else None

    def _tokens(self, tokens: torch.Tensor) -> Size:
        if self.grid is None:
            raise UsageError(
                "Where this network's tokens lie counts: call it through its backbone, or give SetReads the "
                "latents' (height, width) as `grid`."
            )
        return token_grid(self.grid, tokens.shape[1])

    def _checked_sizes(self, images: int) -> tuple[int, ...]:
        if self.set_sizes is None:
            return (1,) * images
        if min(self.set_sizes, default=0) < 1 or sum(self.set_sizes) != images:
            raise UsageError(
                f"Set sizes {self.set_sizes} do not add up to the {images} pictures of the batch."
            )
        return self.set_sizes


def coupled_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    set_sizes: Sequence[int],
    references: Sequence[Pair | CachedTokens | None] | None = None,
    is_reference: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    backend: AttentionBackendName | None = None,
    private: Pair | None = None,
) -> torch.Tensor:
    """Return attention inside each set: query, key, value (I, L, H, D) -> (I, L, H, D).

    One attention call per distinct shape (references read, own pictures): no padding, no cross-talk. Where
    all sets have one size and read no cache, this is a plain view: the supplement's `view(-1, ng*l, c)`.
    Neighbouring sets of one shape are not copied either, so a batch is cheapest with its sets sorted by size.

    references: for each set, cached (keys, values) (R, L, H, D) that it reads beside its own, or None.
    is_reference (I,) bool: the cached coupling as one masked pass without a cache: references see the
    references of their set, a target sees those and itself. Slower, and the plain statement of what the cache
    computes. bias (H, L, L): added to the scores of every two pictures. backend: diffusers' name of an
    implementation of attention; None: the active one.
    private: keys and values (I, K, H, D) that a picture alone sees, after all others: those of its text in an
    MM-DiT, whose queries then follow the picture's in `query` (I, L + K, H, D); no bias goes with it.
    Raises UsageError if `references` is not one entry a set, or both it and `is_reference` are given.
    """
    if references is None:
        references = [None] * len(set_sizes)
    elif is_reference is not None:
        raise UsageError("A reference cache and `is_reference` are two forms of one thing; give one of them.")
    elif len(references) != len(set_sizes):
        raise UsageError(f"The cache view is for {len(references)} sets, but the batch has {len(set_sizes)}.")
    shapes = [
        (0 if pair is None else pair[0].shape[0], size)
        for pair, size in zip(references, set_sizes, strict=True)
    ]
    runs = [list(numbers) for _, numbers in groupby(range(len(shapes)), key=shapes.__getitem__)]
    groups: dict[tuple[int, int], list[int]] = {}
    for run, numbers in enumerate(runs):
        groups.setdefault(shapes[numbers[0]], []).append(run)
    pictures = [sum(set_sizes[number] for number in numbers) for numbers in runs]
    parts = [_split(tokens, pictures) for tokens in (query, key, value)]

    pieces: list[torch.Tensor] = [query] * len(runs)
    for (_, size), members in groups.items():
        numbers = [number for run in members for number in runs[run]]
        queries, keys, values = (_join([part[run] for run in members], size) for part in parts)
        given = [references[number] for number in numbers]
        read = [pair for pair in given if pair is not None]
        if read:
            keys, values = _prepend([pair[0] for pair in read], keys), _prepend([p[1] for p in read], values)
        sees = None if is_reference is None else _cached_mask(is_reference, set_sizes, numbers)
        if private is not None:
            own_pairs = [[_split(each, pictures)[run] for run in members] for each in private]
            mixed = _with_private(queries, keys, values, own_pairs, sees, backend)
        else:
            mask = None if sees is None else _of_tokens(sees, query.shape[1], key.shape[1])
            if bias is not None:
                mask = _biased(mask, bias.to(query.dtype), size, keys.shape[1])
            flat = (queries.flatten(1, 2), keys.flatten(1, 2), values.flatten(1, 2))
            mixed = dispatch_attention_fn(*flat, attn_mask=mask, backend=backend)
        own = _split(mixed.reshape(-1, *query.shape[1:]), [pictures[run] for run in members])
        for run, piece in zip(members, own, strict=True):
            pieces[run] = piece
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _split(tokens: torch.Tensor, pictures: Sequence[int]) -> Sequence[torch.Tensor]:
    """Return (I, L, H, D) in parts of so many pictures; a single part is the tensor itself, without
    a copy.
    """
    return (tokens,) if len(pictures) == 1 else tokens.split(tuple(pictures))


def _join(runs: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Return sets of N pictures, in runs (G*N, L, H, D), as (G, N, L, H, D); a single run is not copied."""
    joined: torch.Tensor = (runs[0] if len(runs) == 1 else torch.cat(tuple(runs))).unflatten(0, (-1, size))
    return joined


def _prepend(read: Sequence[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
    """For each of G sets (R, L, H, D) of references, and (G, N, L, H, D): (G, R + N, L, H, D)."""
    pieces = [piece for both in zip(read, own.unbind(), strict=True) for piece in both]
    joined: torch.Tensor = torch.cat(pieces).unflatten(0, (len(read), -1))
    return joined


def _biased(mask: torch.Tensor | None, bias: torch.Tensor, size: int, seen: int) -> torch.Tensor:
    """Return (H, L, L) for N pictures that see R + N: (1 or G, H, N*L, T), minus infinity where the mask
    forbids.
    """
    tiled = bias.repeat(1, size, seen)[None]
    return tiled if mask is None else tiled.masked_fill(~mask, float("-inf"))


def _with_private(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    private: Sequence[Sequence[torch.Tensor]],
    sees: torch.Tensor | None,
    backend: AttentionBackendName | None,
) -> torch.Tensor:
    """Return attention of every picture of G sets to those of its set (G, R + N, L, H, D) and to what it
    alone sees.

    A row a picture: (G * N, L + K, H, D).
    """
    size, tokens = queries.shape[1], keys.shape[2]
    keys, values = (
        torch.cat([each.flatten(1, 2).repeat_interleave(size, dim=0), torch.cat(tuple(runs))], dim=1)
        for each, runs in zip((keys, values), private, strict=True)
    )
    mask = None
    if sees is not None:
        mask = _of_tokens(sees.reshape(-1, 1, sees.shape[-1]), 1, tokens)
        mask = F.pad(mask, (0, keys.shape[1] - mask.shape[-1]), value=True)
    return dispatch_attention_fn(queries.flatten(0, 1), keys, values, attn_mask=mask, backend=backend)


def _cached_mask(
    is_reference: torch.Tensor, set_sizes: Sequence[int], members: Sequence[int]
) -> torch.Tensor:
    """Return (G, N, N) bool, which pictures see which: references see references, targets those and
    themselves.
    """
    flags = is_reference.split(tuple(set_sizes))
    seen = torch.stack([flags[number] for number in members])
    itself = torch.eye(seen.shape[1], dtype=torch.bool, device=seen.device)
    return seen[:, None, :] | itself


def _of_tokens(pictures: torch.Tensor, queries: int, keys: int) -> torch.Tensor:
    """Return (G, N, M) of pictures with so many tokens each: (G, 1, N * queries, M * keys)."""
    return pictures[:, None].repeat_interleave(queries, dim=2).repeat_interleave(keys, dim=3)
