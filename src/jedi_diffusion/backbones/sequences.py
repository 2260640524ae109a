"""Sets as sequences of tokens, for transformers that read captions and images in one sequence (FLUX).

One sequence a set, in the order in which these models are published: captions, targets, references. Sets of
one shape run as rows of one batch, each shape in a forward pass of its own; nothing is padded.
Letters: I images in a batch; G sets of one shape; K tokens of a caption; T tokens of a sequence; C, H, W a
latent's channels, height, width; in attention H heads, D features a head.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import ClassVar, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.errors import ModelError
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.cache import CachedTokens, CacheView, CacheWriter, Span, visible_tokens
from jedi_diffusion.joint.record import AttentionWriter, cached_images, seen_image
from jedi_diffusion.options import Coupling
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.visibility import Box, Visibility, VisibleTokens, inside


class ImageTokens(NamedTuple):
    """An image in a sequence: its size in latents, and what else decides where it stands and what it reads.

    place: its index on the position axis that tells images apart. has_text: whether its caption is in the
    sequence. visibility: what of it others read; None for all.
    """

    height: int
    width: int
    place: int
    is_reference: bool
    has_text: bool
    visibility: Visibility | None = None


class _Reader(NamedTuple):
    """Parts of a sequence that read the same: captions and images by number, `whole` as it is."""

    parts: tuple[int, ...]
    captions: tuple[int, ...]
    images: tuple[int, ...]
    whole: int | None


@dataclass(frozen=True)
class SequenceLayout:
    """Sets of one shape as sequences (G, T): captions, then the targets, then the references.

    sets (G,): their numbers in the batch. rows: for each the numbers of its images, in the sequence's order.
    text_tokens: K. cache: what the pass writes, or reads beside each sequence. layers: those in which images
    read each other, None for all. record: takes down where targets look in those.

    Every token sees all images, or what is visible of them. A caption and its image see that caption alone,
    so text is private to each image; a reference without a caption of its own sees those of all targets. With
    one target and references without captions, everything sees everything, which is how these models are
    published.
    """

    sets: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    images: tuple[ImageTokens, ...]
    text_tokens: int
    cache: CacheWriter | CacheView | None = None
    layers: frozenset[str] | None = None
    record: AttentionWriter | None = None

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
        """Who reads what where images read each other."""
        return self._grouped(tuple(range(len(self.images))))

    @cached_property
    def _lone_readers(self) -> list[_Reader]:
        """Who reads what where every image reads itself alone."""
        return self._grouped(None)

    def _grouped(self, every: tuple[int, ...] | None) -> list[_Reader]:
        """Return parts that read the same; every: the images that all read, None for each its own."""
        captioned = self.captioned
        number = {place: caption for caption, place in enumerate(captioned)}
        of_targets = [number[place] for place in captioned if not self.images[place].is_reference]
        owners = [*captioned, *range(len(self.images))]
        groups: dict[tuple[tuple[int, ...], tuple[int, ...], int | None], list[int]] = {}
        for part, place in enumerate(owners):
            captions = (number[place],) if place in number else tuple(of_targets)
            alone = every is None or self.images[place].visibility is not None
            images = (place,) if every is None else tuple(n for n in every if self._reads(place, n))
            groups.setdefault((captions, images, place if alone else None), []).append(part)
        return [_Reader(tuple(parts), *read) for read, parts in groups.items()]

    def _reads(self, place: int, other: int) -> bool:
        """Return whether an image reads another one: not one of another subject."""
        own, read = (self.images[number].visibility for number in (place, other))
        return own is None or read is None or own.subject == read.subject

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
        coupled = self.layers is None or layer in self.layers
        readers = self._readers if coupled else self._lone_readers
        visible = [self._visible(image, key.device) if coupled else None for image in self.images]
        cached: CachedTokens | None = None
        if coupled and isinstance(self.cache, CacheWriter):
            self._write(self.cache, layer, key, value, visible)
        elif coupled and isinstance(self.cache, CacheView):
            cached = self._cached(self.cache, layer, key)
        if coupled and self.record is not None:
            self._look(self.record, layer, query, key, visible)
        if len(readers) <= 1 and cached is None and not any(visible):
            return dispatch_attention_fn(query, key, value, backend=backend)
        queries, keys, values = (each.split(self._lengths, dim=1) for each in (query, key, value))
        pieces: dict[int, torch.Tensor] = {}
        for reader in readers:
            seen = self._seen_by(reader, keys, values, visible, cached)
            asked = torch.cat([queries[part] for part in reader.parts], dim=1)
            mixed = dispatch_attention_fn(asked, seen.keys, seen.values, attn_mask=seen.bias, backend=backend)
            pieces |= zip(
                reader.parts, mixed.split([self._lengths[part] for part in reader.parts], dim=1), strict=True
            )
        return torch.cat([pieces[part] for part in range(len(self._lengths))], dim=1)

    def _look(
        self,
        record: AttentionWriter,
        layer: str,
        query: torch.Tensor,
        key: torch.Tensor,
        visible: Sequence[VisibleTokens | None],
    ) -> None:
        """Take down where the targets of each sequence look: in references of a cache, then in the set's
        images in order, beside their own captions."""
        queries, keys = (each.split(self._lengths, dim=1) for each in (query, key))
        captioned, first = self.captioned, len(self.captioned)
        read: Sequence[CachedTokens | None] = [None] * (1 + max(self.sets, default=0))
        if isinstance(self.cache, CacheView):
            read = self.cache.read(layer, like=key, one_size=False)
        for row, (number, rows) in enumerate(zip(self.sets, self.rows, strict=True)):
            before = [] if (cached := read[number]) is None else cached_images(cached)
            order = sorted(range(len(rows)), key=rows.__getitem__)
            for place in [place for place in order if not self.images[place].is_reference]:
                seen = [
                    seen_image(
                        keys[first + other][row],
                        (self.images[other].height, self.images[other].width),
                        None if other == place else visible[other],
                    )
                    for other in order
                ]
                record.look(
                    layer,
                    rows[place],
                    queries[first + place][row],
                    [*before, *seen],
                    len(before) + order.index(place),
                    keys[captioned.index(place)][row],
                )

    def _visible(self, image: ImageTokens, device: torch.device) -> VisibleTokens | None:
        return None if image.visibility is None else image.visibility.at((image.height, image.width), device)

    def _write(
        self,
        cache: CacheWriter,
        layer: str,
        key: torch.Tensor,
        value: torch.Tensor,
        visible: Sequence[VisibleTokens | None],
    ) -> None:
        start, captions = self.text_tokens * len(self.captioned), len(self.captioned)
        for row, number in enumerate(self.sets):
            own, lengths = (key[row, start:], value[row, start:]), self._lengths[captions:]
            if any(visible):
                read = visible_tokens(own[0].split(lengths), own[1].split(lengths), visible)
            else:  # Clones, because values are views of a projection that is many times as large.
                read = CachedTokens(own[0][None].clone(), own[1][None].clone())
            sizes = tuple((image.height, image.width) for image in self.images)
            cache.store_set(layer, number, read._replace(sizes=sizes))

    def _cached(self, cache: CacheView, layer: str, key: torch.Tensor) -> CachedTokens | None:
        """Return what each sequence reads of the cache, (G, tokens, H, D); bias (G, tokens), if any
        has one.
        """
        given = cache.read(layer, like=key, one_size=False)
        read = [each for number in self.sets if (each := given[number]) is not None]
        if not read:
            return None
        keys = torch.stack([each.keys.flatten(0, 1) for each in read])
        values = torch.stack([each.values.flatten(0, 1) for each in read])
        biases = [keys.new_zeros(keys.shape[1]) if each.bias is None else each.bias for each in read]
        has_bias = any(each.bias is not None for each in read)
        spans = read[0].spans  # `lay_out` puts sets together whose spans are the same
        return CachedTokens(keys, values, bias=torch.stack(biases) if has_bias else None, spans=spans)

    def _seen_by(
        self,
        reader: _Reader,
        keys: Sequence[torch.Tensor],
        values: Sequence[torch.Tensor],
        visible: Sequence[VisibleTokens | None],
        cached: CachedTokens | None,
    ) -> CachedTokens:
        """Return what a reader reads: (G, T, H, D), and the bias of scores, if there is one: (G, 1, 1, T), or
        with boxes (G, 1, queries, T).
        """
        first = len(self.captioned)
        own_box = None if reader.whole is None else _box(visible[reader.whole])
        read = [CachedTokens(keys[caption], values[caption]) for caption in reader.captions]
        read += [] if cached is None else [cached]
        for image in reader.images:
            own, seen = CachedTokens(keys[first + image], values[first + image]), visible[image]
            if seen is None and own_box is not None:
                size = (self.images[image].height, self.images[image].width)
                places = torch.nonzero(inside(own_box, size, own.keys.device)).flatten()
                seen = VisibleTokens(places, 0.0)
            read.append(own if seen is None or image == reader.whole else _part(own, seen))
        made = (torch.cat([each.keys for each in read], 1), torch.cat([each.values for each in read], 1))
        if all(each.bias is None and not each.spans for each in read):
            return CachedTokens(*made)
        zeros = [each.keys.new_zeros(each.keys.shape[:2]) for each in read]
        biases = [zero if each.bias is None else each.bias for zero, each in zip(zeros, read, strict=True)]
        bias = torch.cat(biases, dim=1)[:, None, None]
        is_target = reader.whole is None or visible[reader.whole] is None
        if is_target and any(each.spans for each in read):
            bias = bias + self._hidden(reader, read).to(bias)
        return CachedTokens(*made, bias=bias)

    def _hidden(self, reader: _Reader, read: Sequence[CachedTokens]) -> torch.Tensor:
        """Return (queries, T): minus infinity where a query lies outside of the box of a key, or is text."""
        device, first = read[0].keys.device, len(self.captioned)
        spans = [span for each in read for span in each.spans or ((each.keys.shape[1], None),)]
        columns = []
        for count, box in spans:
            rows = []
            for part in reader.parts:
                if box is None or part < first:
                    rows.append(torch.full((self._lengths[part],), box is None, device=device))
                else:
                    image = self.images[part - first]
                    rows.append(inside(box, (image.height, image.width), device))
            column = torch.zeros(sum(map(len, rows)), device=device)
            hidden = column.masked_fill(~torch.cat(rows), float("-inf"))
            columns.append(hidden[:, None].expand(-1, count))
        return torch.cat(columns, dim=1)

    def _pairs(self, rows: Sequence[int]) -> list[tuple[int, ImageTokens]]:
        return list(zip(rows, self.images, strict=True))


def _part(own: CachedTokens, seen: VisibleTokens) -> CachedTokens:
    """Return what others read of an image (G, L, H, D)."""
    if seen.places is not None:
        own = CachedTokens(own.keys[:, seen.places], own.values[:, seen.places])
    if seen.box is not None:
        own = own._replace(spans=((own.keys.shape[1], seen.box),))
    return own._replace(bias=own.keys.new_full(own.keys.shape[:2], seen.bias)) if seen.bias else own


def _box(seen: VisibleTokens | None) -> Box | None:
    return None if seen is None else seen.box


def lay_out(batch: SetBatch, reads: SetReads) -> list[SequenceLayout]:
    """Return the sets of a batch as sequences, a layout for every shape.

    Conditions that count beside `text`: `captioned` (I,) bool, whether a reference has a caption of its own;
    none has one without it. `index` (I,), see `image_indices`, which it replaces. `extent`: see `SetBatch`.
    """
    references = _references(batch)
    told = batch.conditions.get("captioned")
    captioned: list[bool] = [False] * len(references) if told is None else told.tolist()
    given = batch.conditions.get("index")
    sizes = reads.set_sizes or batch.set_sizes
    cached: list[tuple[int, tuple[Span, ...]]] | None = None
    if isinstance(reads.cache, CacheView):
        cached = list(zip(reads.cache.tokens(), reads.cache.spans(), strict=True))
    extents = batch.extents
    groups: dict[
        tuple[tuple[ImageTokens, ...], tuple[int, tuple[Span, ...]] | None], list[tuple[int, tuple[int, ...]]]
    ] = {}
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
                None if batch.visibility is None else batch.visibility[row],
            )
            for row in rows
        )
        beside = None if cached is None else cached[number]
        groups.setdefault((images, beside), []).append((number, tuple(rows)))
    return [
        SequenceLayout(
            sets=tuple(number for number, _ in members),
            rows=tuple(rows for _, rows in members),
            images=images,
            text_tokens=batch.text.shape[1],
            cache=reads.cache,
            layers=reads.layers,
            record=reads.record,
        )
        for (images, _), members in groups.items()
    ]


def _references(batch: SetBatch) -> list[bool]:
    """Return which images are references; none on the meta device, where work is counted without data."""
    return [False] * len(batch.mask) if batch.mask.is_meta else batch.is_reference.tolist()


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


class AttentionLayer(Protocol):
    """A layer of diffusers whose attention a processor computes."""

    processor: object

    def set_processor(self, processor: object, /) -> None: ...


class SequenceProcessor:
    """What attention processors of these families share: the layer's name in a cache, and the sets.

    Without a layout all tokens of a sequence see each other, bit for bit as with the processor it replaces.
    """

    def __init__(self, layer: str, backend: AttentionBackendName | None = None) -> None:
        self.layer = layer
        self._attention_backend = backend  # `set_attention_backend` of diffusers sets it, by this name

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor] | None,
        layout: SequenceLayout | None,
    ) -> torch.Tensor:
        """(G, T, heads, features) three times -> (G, T, heads * features)."""
        if rotary is not None:
            query, key = (_rotated(each, rotary) for each in (query, key))
        whole = layout or SequenceLayout((), (), (), 0)
        return whole.attend(self.layer, query, key, value, self._attention_backend).flatten(2).to(query.dtype)


def _rotated(tokens: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    turned: torch.Tensor = apply_rotary_emb(tokens, rotary, sequence_dim=1)  # type: ignore[arg-type, assignment]
    return turned


class SequenceBackbone(Backbone):
    """A transformer over sets (`SequenceLayout`).

    A model that was trained with references (`clean_references`) reads them clean, whatever `noisy` holds for
    them: with coupling "joint" at the targets' time, with "cached" at time 0 and reading references only.
    They read a caption of their own where the batch says that they have one (`captioned`), which no published
    model was trained with; else, as published, the targets', and none where they are cached.

    processors: by kind of attention layer, what couples it. plain: the processors that it may stand in for.
    embedded_guidance: what a model that takes guidance as an input is told, where the batch has no `guidance`
    (I,).
    """

    processors: ClassVar[dict[type[nn.Module], type[SequenceProcessor]]]
    plain: ClassVar[tuple[type[object], ...]]
    embedded_guidance: float
    cache_untrained = True
    one_pass = False

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        if not self.is_coupled(transformer):
            raise ModelError(
                f"The transformer is not coupled; call {type(self).__name__}.couple(transformer) first."
            )
        self.transformer = cast(ModelMixin, transformer)

    @classmethod
    def make_joint(cls, network: nn.Module) -> None:
        """Couple the attention: the model reads references as it is."""
        cls.couple(network)

    @classmethod
    def couple(cls, network: nn.Module, distance_slope: float | None = None) -> None:
        if distance_slope:
            raise ModelError(f"A {type(network).__name__} knows positions itself; distance_slope must be 0.")
        for name, attn in cls._attention_layers(network):
            stock = attn.processor
            kind = next(made for of, made in cls.processors.items() if isinstance(attn, of))
            if not isinstance(stock, (*cls.plain, kind)):
                raise ModelError(
                    f"Attention layer {name} runs {type(stock).__name__}, which is not plain attention; "
                    "unload what installed it before the transformer is coupled."
                )
            attn.set_processor(kind(name, getattr(stock, "_attention_backend", None)))

    @classmethod
    def is_coupled(cls, network: nn.Module) -> bool:
        layers = [attn for _, attn in cls._attention_layers(network)]
        return bool(layers) and all(isinstance(attn.processor, SequenceProcessor) for attn in layers)

    @classmethod
    def _attention_layers(cls, network: nn.Module) -> Iterator[tuple[str, AttentionLayer]]:
        for name, module in network.named_modules():
            if any(isinstance(module, kind) for kind in cls.processors):
                yield name, cast(AttentionLayer, module)

    @property
    def network(self) -> ModelMixin:
        return self.transformer

    @property
    def attention_layers(self) -> list[str]:
        return [name for name, _ in self._attention_layers(self.transformer)]

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor | float, batch: SetBatch, reads: SetReads
    ) -> torch.Tensor:
        times = torch.as_tensor(timestep, dtype=torch.float32, device=noisy.device).expand(len(noisy))
        dtype, seen = self.transformer.dtype, self._seen(noisy, batch)
        made: dict[int, torch.Tensor] = {}
        for layout in lay_out(batch, reads):
            first = [rows[0] for rows in layout.rows]
            tokens: torch.Tensor = self.transformer(
                hidden_states=layout.pack(seen).to(dtype),
                encoder_hidden_states=layout.captions(batch.text).to(dtype),
                timestep=times[first],
                guidance=self._guidance(batch, first),
                joint_attention_kwargs={"layout": layout},
                return_dict=False,
                **{name: value.to(noisy.device) for name, value in self._inputs(layout, batch).items()},
            )[0]
            made |= layout.unpack(tokens.to(noisy.dtype), noisy.shape[-2:])
        return torch.stack([made[row] for row in range(len(noisy))])

    def _seen(self, noisy: torch.Tensor, batch: SetBatch) -> torch.Tensor:
        """Return what the network sees of the images, (I, its input channels, H, W)."""
        if not self.clean_references:
            return noisy
        given = zip(_references(batch), batch.latents.to(noisy.dtype), noisy, strict=True)
        return torch.stack([clean if is_reference else own for is_reference, clean, own in given])

    @abstractmethod
    def _inputs(self, layout: SequenceLayout, batch: SetBatch) -> dict[str, torch.Tensor]:
        """Return the transformer's inputs of the family beside images, captions and time: positions, ..."""

    @property
    def own_guidance(self) -> float | None:
        return self.embedded_guidance if self.transformer.config["guidance_embeds"] else None

    def reads_empty_captions(self, coupling: Coupling) -> bool:
        return False

    def _guidance(self, batch: SetBatch, rows: list[int]) -> torch.Tensor | None:
        own, given = self.own_guidance, batch.conditions.get("guidance")
        if own is None:
            return None
        return torch.full((len(rows),), own, device=batch.latents.device) if given is None else given[rows]
