"""Coupled self-attention: every token of a set attends to every token of the same set (section 3.2, Fig. 6).

Letters: S sets; N pictures in a set; I pictures in the batch (sum of all N); R references that a set reads
from a cache; L tokens a picture; H heads; D features a head; C = H * D; G sets of one shape, which share an
attention call; T keys that each query of such a set sees, (R + N) * L.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention

from jedi_diffusion.errors import UsageError
from jedi_diffusion.model.attention_record import AttentionWriter
from jedi_diffusion.model.positions import Size, distance_bias, token_grid
from jedi_diffusion.model.reference_cache import CacheView, CacheWriter, Pair


class CoupledSelfAttnProcessor:
    """A diffusers attention processor that couples the pictures of a set.

    Without `set_sizes` every picture is a set of its own, and the result is bit for bit that of diffusers'
    AttnProcessor2_0, unless `distance_slope` is above 0: attention then prefers tokens at near positions
    (`positions.distance_bias`). `layer` names the layer in a reference cache; `stock` is the processor it
    stands in for.
    """

    def __init__(self, layer: str, stock: Any, distance_slope: float = 0.0) -> None:
        self.layer = layer
        self.stock = stock
        self.distance_slope = distance_slope

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        set_sizes: Sequence[int] | None = None,
        reference_cache: CacheWriter | CacheView | None = None,
        is_reference: torch.Tensor | None = None,
        attention_record: AttentionWriter | None = None,
        latent_size: Size | None = None,
    ) -> torch.Tensor:
        """(I, L, C) -> (I, L, C).

        set_sizes: N of every set, in order. reference_cache: a writer keeps this pass's keys and values, a
        view adds those of references to what each set sees. is_reference (I,) bool: see `coupled_attention`.
        attention_record: takes down where targets look; the result is the same. latent_size: height and width
        of the UNet's latents, which attention by position needs. Raises UsageError for sizes that do not add
        up to I, an attention mask, a cache that does not fit, or a latent_size that is missing.
        """
        if attention_mask is not None:
            raise UsageError(
                "Coupled self-attention takes no attention mask; every token of a picture is seen."
            )
        layers = (attn.to_q, attn.to_k, attn.to_v)
        query, key, value = (layer(hidden_states).unflatten(-1, (attn.heads, -1)) for layer in layers)
        sizes = _checked_sizes(set_sizes, pictures=hidden_states.shape[0])
        bias = self._bias(query, latent_size)
        references = None
        if isinstance(reference_cache, CacheWriter):
            reference_cache.store(self.layer, key, value)
        elif reference_cache is not None:
            references = reference_cache.read(self.layer, like=key)
        if attention_record is not None:
            attention_record.store(self.layer, query, key, sizes, references, bias)
        mixed = coupled_attention(query, key, value, sizes, references, is_reference, bias)
        output: torch.Tensor = attn.to_out[0](mixed.flatten(-2).to(query.dtype))
        return attn.to_out[1](output)

    def _bias(self, query: torch.Tensor, latent_size: Size | None) -> torch.Tensor | None:
        if not self.distance_slope:
            return None
        if latent_size is None:
            raise UsageError(
                "This UNet attends by position: call it through JointDenoiser, or give `latent_size`, the "
                "latents' (height, width), in cross_attention_kwargs."
            )
        _, tokens, heads, _ = query.shape
        return distance_bias(token_grid(latent_size, tokens), heads, self.distance_slope, query.device)


class PerPictureProcessor:
    """Cross-attention as it was.

    It accepts the arguments meant for coupled layers (diffusers warns of names a processor lacks) and ignores
    them.
    """

    def __init__(self, stock: Any) -> None:
        self.stock = stock

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        set_sizes: Sequence[int] | None = None,
        reference_cache: CacheWriter | CacheView | None = None,
        is_reference: torch.Tensor | None = None,
        attention_record: AttentionWriter | None = None,
        latent_size: Size | None = None,
    ) -> torch.Tensor:
        """(I, L, C) -> (I, L, C), each picture with its own text."""
        # Transformer blocks give no temb, and not every processor (SlicedAttnProcessor) takes one.
        more = {} if temb is None else {"temb": temb}
        return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, **more)


def coupled_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    set_sizes: Sequence[int],
    references: Sequence[Pair | None] | None = None,
    is_reference: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention inside each set: query, key, value (I, L, H, D) -> (I, L, H, D).

    One attention call per distinct shape (references read, own pictures): no padding, no cross-talk. Where
    all sets have one size and read no cache, this is a plain view: the supplement's `view(-1, ng*l, c)`.
    Neighbouring sets of one shape are not copied either, so a batch is cheapest with its sets sorted by size.

    references: for each set, cached (keys, values) (R, L, H, D) that it reads beside its own, or None.
    is_reference (I,) bool: the cached coupling as one masked pass without a cache: references see the
    references of their set, a target sees those and itself. Slower, and the plain statement of what the cache
    computes. bias (H, L, L): added to the scores of every two pictures. Raises UsageError if `references` is
    not one entry a set, or both it and `is_reference` are given.
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
        mask = None
        if is_reference is not None:
            mask = _cached_mask(is_reference, set_sizes, numbers, query.shape[1])
        if bias is not None:
            mask = _biased(mask, bias.to(query.dtype), size, keys.shape[1])
        mixed = _attend(queries.flatten(1, 2), keys.flatten(1, 2), values.flatten(1, 2), mask)
        own = _split(mixed.reshape(-1, *query.shape[1:]), [pictures[run] for run in members])
        for run, piece in zip(members, own, strict=True):
            pieces[run] = piece
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _split(tokens: torch.Tensor, pictures: Sequence[int]) -> Sequence[torch.Tensor]:
    """(I, L, H, D) in parts of so many pictures; a single part is the tensor itself, without a copy."""
    return (tokens,) if len(pictures) == 1 else tokens.split(tuple(pictures))


def _join(runs: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Sets of N pictures, in runs (G*N, L, H, D), as (G, N, L, H, D); a single run is not copied."""
    return (runs[0] if len(runs) == 1 else torch.cat(tuple(runs))).unflatten(0, (-1, size))


def _prepend(read: Sequence[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
    """For each of G sets (R, L, H, D) of references, and (G, N, L, H, D): (G, R + N, L, H, D)."""
    pieces = [piece for both in zip(read, own.unbind(), strict=True) for piece in both]
    return torch.cat(pieces).unflatten(0, (len(read), -1))


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """(G, N*L, H, D), (G, T, H, D) twice -> (G, N*L, H, D)."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def _biased(mask: torch.Tensor | None, bias: torch.Tensor, size: int, seen: int) -> torch.Tensor:
    """(H, L, L) for N pictures that see R + N: (1 or G, H, N*L, T), minus infinity where the mask forbids."""
    tiled = bias.repeat(1, size, seen)[None]
    return tiled if mask is None else tiled.masked_fill(~mask, float("-inf"))


def _cached_mask(
    is_reference: torch.Tensor, set_sizes: Sequence[int], members: Sequence[int], tokens: int
) -> torch.Tensor:
    """(G, 1, N*L, N*L) bool: references see references, targets see those and themselves."""
    flags = is_reference.split(tuple(set_sizes))
    seen = torch.stack([flags[number] for number in members])
    itself = torch.eye(seen.shape[1], dtype=torch.bool, device=seen.device)
    pictures = seen[:, None, None, :] | itself
    return pictures.repeat_interleave(tokens, dim=2).repeat_interleave(tokens, dim=3)


def _checked_sizes(set_sizes: Sequence[int] | None, pictures: int) -> tuple[int, ...]:
    if set_sizes is None:
        return (1,) * pictures
    if min(set_sizes, default=0) < 1 or sum(set_sizes) != pictures:
        raise UsageError(
            f"Set sizes {tuple(set_sizes)} do not add up to the {pictures} pictures of the batch."
        )
    return tuple(set_sizes)
