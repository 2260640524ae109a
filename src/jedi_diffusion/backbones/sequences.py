"""Sets as sequences of tokens, for transformers that read captions and images in one sequence (FLUX).

One sequence a set, in the order in which these models are published: captions, targets, references. Sets of
one shape run as rows of one batch, each shape in a forward pass of its own; nothing is padded.
Letters: I images in a batch; G sets of one shape; K tokens of a caption; T tokens of a sequence; C, H, W a
latent's channels, height, width; in attention H heads, D features a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.cache import CacheView, CacheWriter
from jedi_diffusion.sets import SetBatch


class ImageTokens(NamedTuple):
    """An image in a sequence: its size in latents, and what else decides where it stands and what it reads.

    place: its index on the position axis that tells images apart. has_text: whether its caption is in the
    sequence.
    """

    height: int
    width: int
    place: int
    is_reference: bool
    has_text: bool


class _Reader(NamedTuple):
    """Parts of a sequence that read the same captions, by number; all read every image."""

    parts: tuple[int, ...]
    captions: tuple[int, ...]


@dataclass(frozen=True)
class SequenceLayout:
    """Sets of one shape as sequences (G, T): captions, then the targets, then the references.

    sets (G,): their numbers in the batch. rows: for each the numbers of its images, in the sequence's order.
    text_tokens: K. cache: what the pass writes, or reads beside each sequence.

    Every token sees all images. A caption and its image see that caption alone, so text is private to each
    image; a reference without a caption of its own sees those of all targets. With one target and references
    without captions, everything sees everything, which is how these models are published.
    """

    sets: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    images: tuple[ImageTokens, ...]
    text_tokens: int
    cache: CacheWriter | CacheView | None = None

    @property
    def captioned(self) -> list[int]:
        """Places among `images` of those whose captions lead the sequence, in order."""
        return [place for place, image in enumerate(self.images) if image.has_text]

    @cached_property
    def _lengths(self) -> list[int]:
        """Tokens of each part: every caption, then every image."""
        captions = [self.text_tokens] * len(self.captioned)
        return captions + [image.height * image.width for image in self.images]

    @cached_property
    def _readers(self) -> list[_Reader]:
        captioned = self.captioned
        number = {place: caption for caption, place in enumerate(captioned)}
        of_targets = [number[place] for place in captioned if not self.images[place].is_reference]
        groups: dict[tuple[int, ...], list[int]] = {(caption,): [caption] for caption in number.values()}
        for place in range(len(self.images)):
            own = (number[place],) if place in number else tuple(of_targets)
            groups.setdefault(own, []).append(len(captioned) + place)
        return [_Reader(tuple(parts), captions) for captions, parts in groups.items()]

    def pack(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the images of a batch (I, C, H, W) as tokens (G, T without captions, C), row by row."""
        return torch.stack(
            [torch.cat([_tokens(latents[n], i) for n, i in self._pairs(r)]) for r in self.rows]
        )

    def unpack(self, tokens: torch.Tensor, size: Sequence[int]) -> dict[int, torch.Tensor]:
        """Undo `pack`: latents (C, H, W) by the number of their image, zero beyond an image's own size.

        size: H and W.
        """
        lengths = [image.height * image.width for image in self.images]
        made = {}
        for rows, sequence in zip(self.rows, tokens, strict=True):
            for (number, image), part in zip(self._pairs(rows), sequence.split(lengths), strict=True):
                latent = part.T.unflatten(1, (image.height, image.width))
                made[number] = F.pad(latent, (0, size[1] - image.width, 0, size[0] - image.height))
        return made

    def captions(self, text: torch.Tensor) -> torch.Tensor:
        """Return the captions (I, K, D) of a batch that lead the sequences, (G, tokens, D)."""
        chosen = [[rows[place] for place in self.captioned] for rows in self.rows]
        return torch.stack([text[numbers].flatten(0, 1) for numbers in chosen])

    def attend(
        self,
        layer: str,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        backend: AttentionBackendName | None = None,
    ) -> torch.Tensor:
        """Return attention at a layer: (G, T, H, D) three times -> (G, T, H, D).

        layer: its name in the cache. backend: diffusers' name of an implementation; None: the active one.
        """
        start = self.text_tokens * len(self.captioned)
        cache = self.cache
        if isinstance(cache, CacheWriter):
            for row, number in enumerate(self.sets):
                own = slice(row, row + 1)
                # Clones, because values are views of a projection that is many times as large.
                cache.store_set(layer, number, key[own, start:].clone(), value[own, start:].clone())
        elif cache is not None:
            key, value = (torch.cat(parts, 1) for parts in self._with_cached(cache, layer, key, value, start))
        if len(self._readers) <= 1:
            return dispatch_attention_fn(query, key, value, backend=backend)
        queries = query.split(self._lengths, dim=1)
        pieces: dict[int, torch.Tensor] = {}
        for parts, captions in self._readers:
            seen = [(c * self.text_tokens, (c + 1) * self.text_tokens) for c in captions]
            spans = [slice(*each) for each in seen] + [slice(start, None)]
            keys, values = (torch.cat([each[:, span] for span in spans], dim=1) for each in (key, value))
            asked = torch.cat([queries[part] for part in parts], dim=1)
            mixed = dispatch_attention_fn(asked, keys, values, backend=backend)
            pieces |= zip(parts, mixed.split([self._lengths[part] for part in parts], dim=1), strict=True)
        return torch.cat([pieces[part] for part in range(len(self._lengths))], dim=1)

    def _with_cached(
        self, cache: CacheView, layer: str, key: torch.Tensor, value: torch.Tensor, start: int
    ) -> list[list[torch.Tensor]]:
        """Return keys and values in parts: captions, cached references, images."""
        given = cache.read(layer, like=key, one_size=False)
        read = [pair for number in self.sets if (pair := given[number]) is not None]
        made = []
        for place, own in enumerate((key, value)):
            cached = [torch.stack([pair[place].flatten(0, 1) for pair in read])] if read else []
            made.append([own[:, :start], *cached, own[:, start:]])
        return made

    def _pairs(self, rows: Sequence[int]) -> list[tuple[int, ImageTokens]]:
        return list(zip(rows, self.images, strict=True))


def lay_out(batch: SetBatch, reads: SetReads) -> list[SequenceLayout]:
    """Return the sets of a batch as sequences, a layout for every shape.

    Conditions that count beside `text`: `captioned` (I,) bool, whether a reference has a caption of its own;
    none has one without it. `index` (I,), see `image_indices`, which it replaces. `extent`: see `SetBatch`.
    """
    references = batch.is_reference.tolist()
    nothing = torch.zeros(len(references), dtype=torch.bool)
    captioned = batch.conditions.get("captioned", nothing).tolist()
    given = batch.conditions.get("index")
    sizes = reads.set_sizes or batch.set_sizes
    cached = reads.cache.tokens() if isinstance(reads.cache, CacheView) else [0] * len(sizes)
    extents = batch.extents
    groups: dict[tuple[tuple[ImageTokens, ...], int], list[tuple[int, tuple[int, ...]]]] = {}
    for number, (start, size) in enumerate(zip(accumulate(sizes, initial=0), sizes, strict=False)):
        own = range(start, start + size)
        indices = image_indices([references[row] for row in own])
        if given is not None:
            indices = [int(index) for index in given[start : start + size].tolist()]
        rows = sorted(own, key=references.__getitem__)  # stable: targets first
        images = tuple(
            ImageTokens(
                *extents[row],
                indices[row - start],
                references[row],
                bool(captioned[row]) or not references[row],
            )
            for row in rows
        )
        groups.setdefault((images, cached[number]), []).append((number, tuple(rows)))
    return [
        SequenceLayout(
            sets=tuple(number for number, _ in members),
            rows=tuple(rows for _, rows in members),
            images=images,
            text_tokens=batch.text.shape[1],
            cache=reads.cache,
        )
        for (images, _), members in groups.items()
    ]


def image_indices(is_reference: Sequence[bool]) -> list[int]:
    """Return the index of each image of a set: 0 for its first target, 1, 2 ... for references in order.

    Further targets go on after the references: such a target lies among images at distances that the model
    knows from references.
    """
    references, targets = 0, 0
    indices = []
    for reference in is_reference:
        if reference:
            references += 1
            indices.append(references)
        else:
            indices.append(sum(is_reference) + targets if targets else 0)
            targets += 1
    return indices


def _tokens(latent: torch.Tensor, image: ImageTokens) -> torch.Tensor:
    """(C, H, W) -> (tokens, C): what lies within the image's own size."""
    return latent[:, : image.height, : image.width].flatten(1).T
