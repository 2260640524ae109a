"""Sources kept in shards: sets in the paper's format, and single pictures as img2dataset writes them."""

from __future__ import annotations

import numpy as np

from jedi_diffusion.data.collection import chosen
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.record import StoredSet, SubjectSet, json_of, picture_of, text_of
from jedi_diffusion.data.shards import Shards
from jedi_diffusion.pictures import open_picture


class StoredSets:
    """Sets in shards (`jedi data pack`); `place` as for `Shards`."""

    def __init__(self, place: str, quarantine: Quarantine | None = None) -> None:
        self.source = place
        self._shards = Shards(place, quarantine)

    def __len__(self) -> int:
        return len(self._shards)

    def name(self, item: int) -> str:
        return self._shards.name(item)

    def size(self, item: int) -> int:
        """The number of captions; that there are as many pictures is checked when the set is read."""
        return max(1, self._shards.sample(item).captions)

    def stored(self, item: int) -> StoredSet:
        """Set number `item`, still encoded. Raises DataError."""
        sample = self._shards.read(item)
        return StoredSet.from_members(sample.key, sample.files, sample.name)

    def read(self, item: int, size: int, generator: np.random.Generator) -> SubjectSet:
        stored = self.stored(item)
        return stored.decode(self.name(item), chosen(len(stored.captions), size, generator))


class SinglePictures:
    """Pictures with one caption each, as img2dataset writes LAION: shards of jpg, txt, json. Sets of one.

    Large JPEGs are decoded at a reduced scale, no smaller than `decode_size`, which may be the training's
    resolution.
    """

    def __init__(self, place: str, quarantine: Quarantine | None = None, decode_size: int = 1024) -> None:
        self.source = place
        self._shards = Shards(place, quarantine)
        self._decode_size = decode_size

    def __len__(self) -> int:
        return len(self._shards)

    def name(self, item: int) -> str:
        return self._shards.name(item)

    def size(self, item: int) -> int:
        return 1

    def read(self, item: int, size: int, generator: np.random.Generator) -> SubjectSet:
        sample = self._shards.read(item)
        _, data = picture_of(sample.files, sample.name)
        record = json_of(sample.files, sample.name)
        return SubjectSet(
            pictures=(open_picture(data, sample.name, self._decode_size),),
            captions=(text_of(sample.files, sample.name).strip(),),
            source=self.source,
            info={name: record[name] for name in ("url", "key") if name in record},
        )
