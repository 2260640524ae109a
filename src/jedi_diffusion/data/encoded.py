"""A collection whose latents and text embeddings were computed before training (`jedi data encode`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jedi_diffusion.data.collection import chosen
from jedi_diffusion.data.encoded_shard import EncodedSet, EncodedShard, encoded_name
from jedi_diffusion.data.shards import ShardIndex, checksum
from jedi_diffusion.data.stored import SinglePictures, StoredSets
from jedi_diffusion.errors import DataError
from jedi_diffusion.sets import ImageSet

HOW = "encode it by `jedi data encode`"


class EncodedSets:
    """Sets or single pictures in shards, read as latents from the encoded shards called `name` beside them.

    Draws what the collection itself would draw, in the same order. Raises UsageError if the collection is not
    in shards, DataError if one of them is not encoded, or was changed since.
    """

    def __init__(self, collection: StoredSets | SinglePictures, name: str) -> None:
        self.collection, self.source = collection, collection.source
        self._shards = collection.shards()
        kind = kind_of(collection)
        self.encoded = [open_encoded(tar, name, index, kind) for tar, index in self._shards.tars]

    def __len__(self) -> int:
        return len(self.collection)

    def name(self, item: int) -> str:
        return self.collection.name(item)

    def size(self, item: int) -> int:
        return self.collection.size(item)

    def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
        """Return the pictures themselves, for people to look at."""
        return self.collection.read(item, size, generator)

    def latents(self, item: int, size: int, generator: np.random.Generator) -> EncodedSet:
        """Return what `read` would give, encoded. Raises DataError."""
        shard, row = self._shards.place_of(item)
        encoded = self.encoded[shard]
        return encoded.read(row, chosen(encoded.pictures(row), size, generator))

    def parts(self) -> Iterator[tuple[str, str]]:
        """Yield each tar, and the encoded shard beside it, which was made of the tar with this index."""
        for (tar, digest), encoded in zip(self._shards.parts(), self.encoded, strict=True):
            yield tar, digest
            yield encoded.url, checksum(encoded.about.model_dump_json().encode())

    def check(self, encoders: str, base: str, resolution: int) -> None:
        for each in self.encoded:
            if each.about.resolution != resolution:
                raise DataError(
                    f"{each.url} was encoded at {each.about.resolution} pixels, but the recipe asks for "
                    f"{resolution}: {HOW} --resolution {resolution} under another --name."
                )
            if each.about.encoders != encoders:
                raise DataError(
                    f"{each.url} is stale: it was encoded by the autoencoder and text encoders of "
                    f"{each.about.base}, which are not those of {base}: {HOW} --replace."
                )


def kind_of(collection: StoredSets | SinglePictures) -> str:
    """Return what sort of sets a collection reads from its shards, as an encoded shard says it."""
    return "single" if isinstance(collection, SinglePictures) else "sets"


def open_encoded(tar: str, name: str, index: ShardIndex, kind: str) -> EncodedShard:
    """Return the encoded shard of a tar. Raises DataError if it is missing, damaged, or of something else."""
    try:
        shard = EncodedShard(encoded_name(tar, name))
    except DataError as error:
        raise DataError(
            f"{tar} has no latents called {name!r} ({error}) `jedi data encode` makes them."
        ) from error
    about = shard.about
    if about.index != index.header.checksum or len(shard) != len(index):
        raise DataError(f"{shard.url} is stale: {tar} has changed since; {HOW} again.")
    if about.kind != kind:
        raise DataError(
            f"{shard.url} was encoded as {about.kind}, not as {kind}: {HOW} --kind {kind} --replace."
        )
    return shard
