"""Which set stands at which place of a training: a pure function of the seed and the place.

No state is kept, so any place is found in constant time: a run resumes exactly, and any number of processes
and workers reads the same global order. Section 4: sources with equal probability, set sizes 2 to 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image, ImageOps

from jedi_diffusion.data.collection import PAPER_SIZES, EncodedCollection, SetCollection
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.errors import DataError, PictureError, UsageError
from jedi_diffusion.pictures import fit_square
from jedi_diffusion.randomness import Permutation, keyed_number
from jedi_diffusion.sets import ImageSet

if TYPE_CHECKING:
    from jedi_diffusion.data.encoded_shard import EncodedSet


Read = TypeVar("Read")

BLOCK = 4096
"""Places over which the sources' shares come out even."""
ATTEMPTS = 100
"""Replacements that are tried for a set that cannot be read."""


class Schedule:
    """Which source stands at a place, and how many of its sets came before: `schedule(place)`.

    Each block of BLOCK places holds every source as often as its probability says, up to rounding that evens
    out over blocks, in an order of its own.
    """

    def __init__(self, probabilities: Sequence[float], seed: int) -> None:
        total = sum(probabilities)
        if not probabilities or min(probabilities) * BLOCK < 2 * total:
            raise UsageError(f"The probability of a source is more than 0, at least {2 / BLOCK:.4f} of all.")
        weights = [round(each / total * 2**32) for each in probabilities]
        self._ends = list(accumulate(weights, initial=0))
        self._seed = seed
        self._block = -1
        self._sources = self._earlier = np.zeros(0, np.int64)

    def __call__(self, place: int) -> tuple[int, int]:
        block, offset = divmod(place, BLOCK)
        if block != self._block:
            self._lay_out(block)
        source = int(self._sources[offset])
        before = self._until(block)
        return source, before[source + 1] - before[source] + int(self._earlier[offset])

    def _lay_out(self, block: int) -> None:
        """Of each place of a block its source, and how many earlier places of the block have the same."""
        before, after = self._until(block), self._until(block + 1)
        counts = np.diff(after) - np.diff(before)
        # Raw values of a bit generator are the same in every version of numpy, its shuffles are not.
        order = np.random.Philox(keyed_number(self._seed, "schedule", block)).random_raw(BLOCK).argsort()
        self._sources = np.repeat(np.arange(len(counts)), counts)[order]
        self._earlier = np.zeros(BLOCK, np.int64)
        for source, count in enumerate(counts):
            self._earlier[self._sources == source] = np.arange(count)
        self._block = block

    def _until(self, block: int) -> list[int]:
        """Return places of sources 0 ... s - 1 in all blocks before this one, for every s."""
        return [block * BLOCK * end // self._ends[-1] for end in self._ends]


@dataclass(frozen=True)
class MixtureSource:
    """A collection, its probability beside the others', and the set sizes that are drawn, all equally likely.

    A set with fewer pictures than the smallest size is taken whole.
    """

    collection: SetCollection
    probability: float = 1.0
    sizes: tuple[int, ...] = PAPER_SIZES

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise UsageError("Set sizes are whole numbers of at least 1.")
        if len(self.collection) == 0:
            raise UsageError(f"{self.collection.source} holds no sets.")


@dataclass(frozen=True)
class Pick:
    """What stands at a place: `size` pictures of set number `item` of source number `source`."""

    place: int
    source: int
    item: int
    size: int
    epoch: int


class Mixture:
    """Sets of several sources by place: `mixture[place]` is an ImageSet of `resolution` pixels a side.

    Within an epoch of a source each of its sets comes once, in an order of its own for each epoch. A set that
    cannot be used goes to the quarantine, and another one of the source takes its place, chosen by seed and
    place alone. Works as a map-style dataset of torch's DataLoader.
    """

    def __init__(
        self,
        sources: Sequence[MixtureSource],
        resolution: int,
        seed: int = 0,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self.resolution = resolution
        self.seed = seed
        self.quarantine = Quarantine() if quarantine is None else quarantine
        self._schedule = Schedule([each.probability for each in sources], seed)

    @property
    def fingerprint(self) -> int:
        """Equal where the order is: processes compare it, lest one of them misses a shard."""
        parts = [(each.collection.source, len(each.collection)) for each in self.sources]
        shares = [(each.probability, each.sizes) for each in self.sources]
        return keyed_number(self.seed, self.resolution, repr(parts), repr(shares))

    @property
    def encoded_sources(self) -> tuple[bool, ...]:
        """Of each source whether it was encoded before."""
        return tuple(isinstance(each.collection, EncodedCollection) for each in self.sources)

    @property
    def encoded(self) -> bool:
        """Whether all sources were encoded before: pictures are read for people alone then."""
        return all(self.encoded_sources)

    def check_encoded(self, encoders: Callable[[], str], base: str) -> None:
        """Raise DataError if a source was encoded by other networks than those of this fingerprint.

        encoders: gives `train.frozen.encoders_fingerprint`, if it is asked for; base: the networks' name.
        """
        collections = [each.collection for each in self.sources]
        sources = [each for each in collections if isinstance(each, EncodedCollection)]
        if sources:
            fingerprint = encoders()
            for each in sources:
                each.check(fingerprint, base, self.resolution)

    def pick(self, place: int) -> Pick:
        """Return what stands at a place; reads no picture."""
        if place < 0:
            raise IndexError(place)
        number, count = self._schedule(place)
        source = self.sources[number]
        epoch, index = divmod(count, len(source.collection))
        item = Permutation(len(source.collection), self.seed, "items", number, epoch)(index)
        available = source.collection.size(item)
        fitting = [size for size in sorted(source.sizes) if size <= available] or [available]
        size = fitting[keyed_number(self.seed, "size", place) % len(fitting)]
        return Pick(place, number, item, size, epoch)

    def __getitem__(self, place: int) -> ImageSet:
        """Return the set at a place.

        Raises DataError above the quarantine's limit, or if nothing can replace it.
        """
        return self._usable(self.pick(place), self._read)

    def training_set(self, place: int) -> ImageSet | EncodedSet:
        """Return the set at a place as a training reads it: encoded, where its source is.

        Raises as `[place]`.
        """
        pick = self.pick(place)
        collection = self.sources[pick.source].collection
        if not isinstance(collection, EncodedCollection):
            return self._usable(pick, self._read)
        return self._usable(pick, lambda found, attempt: self._latents(collection, found, attempt))

    def _usable(self, pick: Pick, read: Callable[[Pick, int], Read]) -> Read:
        """Return what can be read for a pick, or for those that replace it."""
        for attempt in range(ATTEMPTS):
            try:
                return read(pick, attempt)
            except (DataError, PictureError) as error:
                other = self._replacement(pick, attempt + 1)
                collection = self.sources[pick.source].collection
                self.quarantine.add(
                    collection.source, collection.name(pick.item), str(error), collection.name(other.item)
                )
                pick = other
        raise DataError(
            f"{self.sources[pick.source].collection.source}: none of {ATTEMPTS} sets can be used."
        )

    def _latents(self, collection: EncodedCollection, pick: Pick, attempt: int) -> EncodedSet:
        return collection.latents(pick.item, pick.size, self._draw(pick, attempt))

    def _draw(self, pick: Pick, attempt: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, pick.place, attempt])

    def _read(self, pick: Pick, attempt: int) -> ImageSet:
        collection = self.sources[pick.source].collection
        given = collection.read(pick.item, pick.size, self._draw(pick, attempt))
        made = square_set(given, self.resolution)
        record = {"source": collection.source, "set": collection.name(pick.item), "place": pick.place}
        return replace(made, info={**made.info, **record})

    def _replacement(self, pick: Pick, attempt: int) -> Pick:
        """Return another set of the source with enough pictures. Raises DataError if none is found."""
        collection = self.sources[pick.source].collection
        for trial in range(ATTEMPTS):
            item = keyed_number(self.seed, "replacement", pick.place, attempt, trial) % len(collection)
            if item != pick.item and collection.size(item) >= pick.size:
                return replace(pick, item=item)
        raise DataError(
            f"{collection.name(pick.item)} cannot be used, and {collection.source} has no other set of "
            f"{pick.size} pictures."
        )


def places(step: int, batch: int, rank: int = 0, ranks: int = 1) -> range:
    """Return the places that process `rank` of `ranks` reads for a step of `batch` sets in all.

    The processes' places in the order of their ranks are the step's, whatever their number. Raises UsageError
    if the batch cannot be split evenly.
    """
    if batch % ranks:
        raise UsageError(f"A batch of {batch} sets cannot be split evenly over {ranks} processes.")
    share = batch // ranks
    first = step * batch + rank * share
    return range(first, first + share)


def square_set(given: ImageSet, resolution: int) -> ImageSet:
    """Return the set with the centres of its pictures and masks, squares of `resolution` pixels a side.

    Section 6: "We only use square images in training".
    """
    masks = None
    if given.masks is not None:
        masks = tuple(square_mask(mask, resolution) for mask in given.masks)
    return replace(
        given,
        pictures=tuple(fit_square(picture, resolution) for picture in given.pictures),
        masks=masks,
        info={**given.info, "subject": given.subject},
    )


def square_mask(mask: Image.Image, resolution: int) -> Image.Image:
    """Return the part of a mask that `fit_square` keeps of its picture."""
    return ImageOps.fit(mask, (resolution, resolution), Image.Resampling.BILINEAR)
