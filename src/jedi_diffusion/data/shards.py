"""Samples of indexed tars by number, each by one range read with checked sums."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.shard_index import Sample, ShardIndex, checksum, load_index
from jedi_diffusion.data.storage import read_bytes, tars_of
from jedi_diffusion.errors import DataError


@dataclass(frozen=True)
class StoredSample:
    """The files of a sample by ending; `name` says which one it is in messages."""

    key: str
    name: str
    files: dict[str, bytes]


class Shards:
    """The samples of tars (see `storage.tars_of`), numbered through in the order of the tars.

    With a `quarantine`, a tar without a sound index is recorded there and left out; otherwise it raises
    DataError.
    """

    def __init__(self, place: str, quarantine: Quarantine | None = None) -> None:
        self.place = place
        self._tars: list[str] = []
        self._indexes: list[ShardIndex] = []
        for tar in tars_of(place):
            try:
                index = load_index(tar)
            except DataError as error:
                if quarantine is None:
                    raise
                quarantine.add(place, tar, str(error))
                continue
            self._tars.append(tar)
            self._indexes.append(index)
        self._ends = list(accumulate(len(index) for index in self._indexes))
        if not self:
            raise DataError(f"{place} holds no samples.")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def tars(self) -> list[tuple[str, ShardIndex]]:
        """Each tar that can be used, with its index, in order."""
        return list(zip(self._tars, self._indexes, strict=True))

    def parts(self) -> Iterator[tuple[str, str]]:
        """Yield each tar with the digest of its index, which holds the checksums of all its files."""
        yield from ((tar, index.header.checksum) for tar, index in self.tars)

    def place_of(self, item: int) -> tuple[int, int]:
        """The number of the tar that sample number `item` is in, and its row there."""
        if not 0 <= item < len(self):
            raise IndexError(item)
        shard = bisect_right(self._ends, item)
        return shard, item - (self._ends[shard - 1] if shard else 0)

    def sample(self, item: int) -> Sample:
        """What the index says of sample number `item`."""
        return self._find(item)[1]

    def captions(self, item: int) -> int:
        """How many captions sample number `item` has."""
        return self.sample(item).captions

    def name(self, item: int) -> str:
        """Sample number `item` in words."""
        tar, sample = self._find(item)
        return f"{sample.key} of {tar}"

    def read(self, item: int, endings: Sequence[str] | None = None) -> StoredSample:
        """The files of sample number `item`, or those with these endings, by one range read.

        Raises DataError if the tar cannot be read there, or its bytes are not those that were indexed.
        """
        tar, sample = self._find(item)
        name = f"{sample.key} of {tar}"
        start, end = sample.span
        data = read_bytes(tar, start, end)
        files = {}
        for ending, file in sample.files.items():
            if endings is not None and ending not in endings:
                continue
            files[ending] = data[file.offset - start : file.offset - start + file.size]
            if checksum(files[ending]) != file.checksum:
                raise DataError(f"{name} is damaged: the checksum of its {ending} is not the index's.")
        return StoredSample(sample.key, name, files)

    def _find(self, item: int) -> tuple[str, Sample]:
        shard, row = self.place_of(item)
        return self._tars[shard], self._indexes[shard][row]
