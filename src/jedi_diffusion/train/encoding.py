"""Latents and text embeddings of shards, computed once before training (`jedi data encode`).

Each shard gets a file beside it (`data.encoded_shard`) that appears when it is whole: what was done when a
run was stopped stays done.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from jedi_diffusion.data.encoded import kind_of
from jedi_diffusion.data.encoded_shard import EncodedAbout, EncodedShard, EncodedWriter, encoded_name
from jedi_diffusion.data.mixture import square_set
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.shards import ShardIndex
from jedi_diffusion.data.storage import exists, open_folder, tars_of
from jedi_diffusion.data.stored import SinglePictures, StoredSets
from jedi_diffusion.errors import DataError, PictureError, UsageError
from jedi_diffusion.inputs import check_prompt
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.train.frozen import encoders_fingerprint, frozen_modules

AHEAD = 4
"""Sets that are read ahead by each thread."""


@dataclass(frozen=True)
class Encoding:
    """How shards are encoded: under which name beside them, pictures of which side, stored in which type.

    batch: pictures that the autoencoder gets at a time; threads: how many read and decode; replace: redo
    files of other networks, sizes or types, and those with sets that could not be used.
    """

    name: str
    base: str
    resolution: int
    kind: Literal["sets", "single"] = "sets"
    store: Literal["float32", "float16", "bfloat16"] = "float16"
    batch: int = 8
    threads: int = 4
    replace: bool = False


@dataclass(frozen=True)
class OpenTar:
    """A tar that is to be encoded."""

    tar: str
    collection: StoredSets | SinglePictures
    index: ShardIndex


@dataclass
class Count:
    """What was done: tars encoded, tars that had been encoded already, sets and pictures, and faults."""

    tars: int = 0
    done_before: int = 0
    sets: int = 0
    pictures: int = 0
    faults: int = 0


class ShardEncoder:
    """Encodes the tars of `place` by the frozen networks of a pipeline, in the types that they are in.

    encoders: their fingerprint, taken when they were as they were loaded. `faulty(reason)` is told what
    cannot be used; it is also put into the quarantine and into the encoded file.
    """

    def __init__(
        self,
        pipeline: JeDiPipeline,
        encoders: str,
        place: str,
        settings: Encoding,
        quarantine: Quarantine,
        faulty: Callable[[str], None],
    ) -> None:
        self.pipeline, self.encoders, self.place = pipeline, encoders, place
        self.settings, self.quarantine, self.faulty = settings, quarantine, faulty
        self.count = Count()
        # As training has them: with gradients torch takes other kernels, which round otherwise.
        for module in frozen_modules(pipeline).values():
            module.requires_grad_(False).eval()

    def open(self, rank: int = 0, ranks: int = 1) -> list[OpenTar]:
        """Return the tars that this process of several encodes. Raises UsageError, OutputError, DataError."""
        tars = tars_of(self.place)
        open_folder(tars[0].rpartition("/")[0] or ".")
        opened = [self._open(tar) for tar in tars[rank::ranks]]
        return [each for each in opened if each is not None and self._wanted(each)]

    def encode(self, given: OpenTar, after_set: Callable[[], object]) -> None:
        """Write the encoded shard of a tar; `after_set()` follows each set.

        Raises DataError above the quarantine's limit, or if embeddings do not fit the type; OutputError.
        """
        settings = self.settings
        about = EncodedAbout(
            tar=given.tar.rpartition("/")[2],
            index=given.index.header.checksum,
            encoders=self.encoders,
            base=settings.base,
            kind=settings.kind,
            resolution=settings.resolution,
            dtype=settings.store,
        )
        with EncodedWriter(encoded_name(given.tar, settings.name), about) as writer:
            for group in _groups(self._sets(given.collection), settings.batch):
                self._write(writer, given.collection, group)
                for _ in group:
                    after_set()
        self.count.tars += 1

    def _open(self, tar: str) -> OpenTar | None:
        """None, and a fault, for a tar that cannot be read."""
        try:
            if self.settings.kind == "single":
                collection: StoredSets | SinglePictures = SinglePictures(
                    tar, decode_size=self.settings.resolution
                )
            else:
                collection = StoredSets(tar)
        except DataError as error:
            self._fault(tar, str(error))
            return None
        ((_, index),) = collection.shards().tars
        assert kind_of(collection) == self.settings.kind
        return OpenTar(tar, collection, index)

    def _wanted(self, given: OpenTar) -> bool:
        """Return whether a tar is still to be encoded. Raises UsageError if something else has the name."""
        url = encoded_name(given.tar, self.settings.name)
        if not exists(url):
            return True
        try:
            about = EncodedShard(url).about
        except DataError:  # damaged: it is made anew
            return True
        if about.index != given.index.header.checksum:  # the tar has changed
            return True
        settings = self.settings
        ours = (self.encoders, settings.kind, settings.store)
        if (about.encoders, about.kind, about.dtype) != ours and not settings.replace:
            raise UsageError(
                f"{url} holds {about.kind} encoded by {about.base} at {about.resolution} pixels in "
                f"{about.dtype}: choose another --name, or --replace it."
            )
        if settings.replace and ((about.encoders, about.kind, about.dtype) != ours or about.faults):
            return True
        self.count.done_before += 1
        return False

    def _fault(self, item: str, reason: str) -> None:
        self.count.faults += 1
        self.faulty(reason)
        self.quarantine.add(self.place, item, reason)

    def _sets(self, collection: StoredSets | SinglePictures) -> Iterator["_Read"]:
        """Yield every set in order, read and decoded ahead by threads."""
        with ThreadPoolExecutor(self.settings.threads) as pool:
            waiting: deque[Future[_Read]] = deque()
            for item in range(len(collection)):
                waiting.append(pool.submit(self._read, collection, item))
                if len(waiting) > AHEAD * self.settings.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _read(self, collection: StoredSets | SinglePictures, item: int) -> "_Read":
        try:
            given = square_set(collection.whole(item), self.settings.resolution)
            for caption in given.captions:
                check_prompt(caption)
        except (DataError, PictureError, UsageError) as error:
            return _Read(item, str(error))
        return _Read(item, given)

    def _write(
        self, writer: EncodedWriter, collection: StoredSets | SinglePictures, group: Sequence["_Read"]
    ) -> None:
        """Encode a group of sets and append them in order."""
        good = [each.given for each in group if isinstance(each.given, ImageSet)]
        self._add_captions(writer, good)
        latents = iter(self._latents(good))
        for each in group:
            reason = each.given
            if isinstance(reason, ImageSet):
                try:
                    writer.add_set(next(latents), reason.captions)
                    self.count.sets += 1
                    self.count.pictures += len(reason)
                    continue
                except DataError as error:
                    reason = str(error)
            writer.add_fault(reason)
            self._fault(collection.name(each.item), reason)

    @torch.no_grad()
    def _add_captions(self, writer: EncodedWriter, sets: Sequence[ImageSet]) -> None:
        unknown = writer.unknown([caption for each in sets for caption in each.captions]) if sets else []
        if unknown:
            text = self.pipeline.encode_captions(unknown)
            writer.add_captions(unknown, text["text"], text.get("pooled_text"))

    @torch.no_grad()
    def _latents(self, sets: Sequence[ImageSet]) -> Sequence[Tensor]:
        """Of each set (N, C, H, W)."""
        pictures = [picture for each in sets for picture in each.pictures]
        if not pictures:
            return ()
        pixels = torch.from_numpy(np.stack([np.asarray(each) for each in pictures]))
        # The layout in memory decides the rounding of convolutions: training's, to the last bit.
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
        parts = [
            self.pipeline.encode_pictures(part.float() / 127.5 - 1)
            for part in pixels.split(self.settings.batch)
        ]
        return torch.cat(parts).split([len(each) for each in sets])


@dataclass(frozen=True)
class _Read:
    """A set as it was read, or why it cannot be used."""

    item: int
    given: ImageSet | str

    @property
    def pictures(self) -> int:
        return len(self.given) if isinstance(self.given, ImageSet) else 0


def _groups(sets: Iterator[_Read], pictures: int) -> Iterator[list[_Read]]:
    """Return sets in order, in groups of at least so many pictures, but for the last."""
    group: list[_Read] = []
    for each in sets:
        group.append(each)
        if sum(one.pictures for one in group) >= pictures:
            yield group
            group = []
    if group:
        yield group


def encode_shards(
    pipeline: JeDiPipeline,
    place: str,
    settings: Encoding,
    quarantine: Quarantine | None = None,
) -> Count:
    """Encode all shards of a place by a pipeline as it is. Raises DataError, OutputError, UsageError."""
    encoders = encoders_fingerprint(pipeline, settings.resolution)
    encoder = ShardEncoder(pipeline, encoders, place, settings, quarantine or Quarantine(), lambda _: None)
    for each in encoder.open():
        encoder.encode(each, lambda: None)
    return encoder.count
