"""Sets in the paper's format, in shards or in a folder, and single pictures as img2dataset writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from jedi_diffusion.data.collection import SetCollection, chosen
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.record import KINDS, MASKS, StoredSet, json_of, picture_of, split_captions, text_of
from jedi_diffusion.data.settings import StoredSource
from jedi_diffusion.data.shards import Shards, StoredSample
from jedi_diffusion.data.storage import files_below, holds_tars, read_bytes
from jedi_diffusion.errors import DataError, UsageError
from jedi_diffusion.files import MASK_ENDING, is_mask, stem_of
from jedi_diffusion.pictures import open_picture
from jedi_diffusion.sets import ImageSet


class StackedFiles:
    """Sets in the paper's format in a folder: KEY.jpg, KEY.txt and, if there are, KEY.json, KEY.mask.png."""

    def __init__(self, folder: str) -> None:
        endings = [f".{kind}" for kind in (*KINDS, "jpeg")]
        self._pictures = [file for file in files_below(folder, endings) if not is_mask(file)]
        if not self._pictures:
            raise DataError(f"{folder} holds no pictures.")
        others = files_below(folder, [".txt", ".json", MASK_ENDING])
        self._others = {(stem_of(file), _ending(file)): file for file in others}

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, item: int) -> str:
        return self._pictures[item]

    def captions(self, item: int) -> int:
        """Return the number of captions of set number `item`, 0 if they are missing."""
        text = self._others.get((stem_of(self._pictures[item]), "txt"))
        return 0 if text is None else len(split_captions(read_bytes(text).decode(errors="replace")))

    def read(self, item: int) -> StoredSample:
        """Return the files of set number `item`. Raises DataError."""
        picture = self._pictures[item]
        stem = stem_of(picture)
        files = {_ending(picture): read_bytes(picture)}
        for ending in ("txt", "json", MASKS):
            if other := self._others.get((stem, ending)):
                files[ending] = read_bytes(other)
        return StoredSample(stem.rpartition("/")[2], picture, files)

    def parts(self) -> Iterator[tuple[str, None]]:
        """Yield every file."""
        yield from ((file, None) for file in (*self._pictures, *self._others.values()))


def _ending(file: str) -> str:
    """Return what the file is called in a sample."""
    return MASKS if is_mask(file) else file.rpartition(".")[2].lower()


class StoredSets:
    """Sets in the paper's format: in shards (`jedi data pack`; `place` as for `Shards`), or in a folder."""

    def __init__(self, place: str, quarantine: Quarantine | None = None) -> None:
        self.source = place
        self._sets = Shards(place, quarantine) if holds_tars(place) else StackedFiles(place)

    def __len__(self) -> int:
        return len(self._sets)

    def name(self, item: int) -> str:
        return self._sets.name(item)

    def size(self, item: int) -> int:
        """Return the number of captions; that there are as many pictures is checked when the set is read."""
        return max(1, self._sets.captions(item))

    def parts(self) -> Iterator[tuple[str, str | None]]:
        yield from self._sets.parts()

    def shards(self) -> Shards:
        """Return the shards that hold the sets. Raises UsageError for a folder of files."""
        if not isinstance(self._sets, Shards):
            raise UsageError(f"{self.source} holds no shards: make them by `jedi data pack`.")
        return self._sets

    def whole(self, item: int) -> ImageSet:
        """Return all pictures of set number `item`, in their order. Raises DataError and PictureError."""
        return self.stored(item).decode(self.name(item))

    def stored(self, item: int) -> StoredSet:
        """Set number `item`, still encoded. Raises DataError."""
        sample = self._sets.read(item)
        return StoredSet.from_members(sample.key, sample.files, sample.name)

    def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
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

    def shards(self) -> Shards:
        """Return the shards that hold the pictures."""
        return self._shards

    def parts(self) -> Iterator[tuple[str, str]]:
        yield from self._shards.parts()

    def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
        return self.whole(item)

    def whole(self, item: int) -> ImageSet:
        """Return the set of picture number `item`. Raises DataError and PictureError."""
        sample = self._shards.read(item)
        _, data = picture_of(sample.files, sample.name)
        record = json_of(sample.files, sample.name)
        return ImageSet(
            pictures=(open_picture(data, sample.name, self._decode_size),),
            captions=(text_of(sample.files, sample.name).strip(),),
            source=self.source,
            info={name: record[name] for name in ("url", "key") if name in record},
        )


class SetsSection(StoredSource):
    """Sets in the paper's format: shards, or a folder."""

    drawn: ClassVar[str | None] = None
    kind: Literal["sets"] = "sets"

    def open(self, resolution: int, quarantine: Quarantine | None = None) -> SetCollection:
        return _encoded(StoredSets(self.place, quarantine), self.encoded)


class SingleSection(StoredSource):
    """Shards of single pictures with captions, as img2dataset writes them."""

    drawn: ClassVar[str | None] = None
    kind: Literal["single"] = "single"

    def open(self, resolution: int, quarantine: Quarantine | None = None) -> SetCollection:
        return _encoded(SinglePictures(self.place, quarantine, resolution), self.encoded)


def _encoded(collection: StoredSets | SinglePictures, name: str | None) -> SetCollection:
    if name is None:
        return collection
    from jedi_diffusion.data.encoded import EncodedSets  # loads torch, which other sources need not

    return EncodedSets(collection, name)
