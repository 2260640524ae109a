"""Everything that the report says in numbers, from a run's folder, encoders and real photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from jedi_diffusion.data.shards import checksum
from jedi_diffusion.data.stored import StoredSets
from jedi_diffusion.errors import DataError
from jedi_diffusion.pictures import open_picture
from jedi_diffusion.randomness import Permutation
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.synthesis.names import read_object_names
from jedi_diffusion.synthesis.outputs import OBJECTS, SHARDS, Marker, OutputFolder, stem, total_counts
from jedi_diffusion.synthesis.recipe import SynthesisRecipe, plan_shards
from jedi_diffusion.synthesis.records import Stage
from jedi_diffusion.synthesis.report.filters import FilterScores
from jedi_diffusion.synthesis.report.records import CollageRecord, read_collages, step_of
from jedi_diffusion.synthesis.report.similarity import PictureEncoder, SetFeatures, Similarity
from jedi_diffusion.synthesis.report.thresholds import AffinityCurve
from jedi_diffusion.synthesis.work import StageCount

PLAIN = "no style"
PHOTO_SIZE = 512
"""Least side in pixels at which large photos are decoded; encoders see less."""


class PhotoSubject(NamedTuple):
    """Real photos of one subject, and what it is."""

    name: str
    category: str
    photos: Sequence[Path]


@dataclass
class Contents:
    """What is in the records. Counters count sets, but `styles` pictures."""

    sizes: Counter[int] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    styles: Counter[str] = field(default_factory=Counter)
    subjects: int = 0
    collages: int = 0
    empty_collages: int = 0
    """Collages of which no set came."""
    filters: FilterScores = field(default_factory=FilterScores)
    curve: AffinityCurve = field(default_factory=AffinityCurve)

    def add(self, collage: CollageRecord) -> None:
        self.collages += 1
        self.empty_collages += not collage.sets
        self.subjects += len({each["group"] for each in collage.sets})
        for made in collage.sets:
            self.sizes[len(made["pictures"])] += 1
            self.objects[made["object"]] += 1
            self.categories[made["category"]] += 1
            for picture in made["pictures"]:
                self.styles[step_of(picture, Stage.STYLE).get("style") or PLAIN] += 1
        if collage.panels is not None:
            self.filters.add(collage)
        self.curve.add(collage)


@dataclass(frozen=True)
class Facts:
    """A run's numbers. sampled: the numbers of the sets whose pictures were read; photo rows are None where
    no photos were given.
    """

    folder: Path
    recipe: SynthesisRecipe
    markers: Sequence[Marker]
    planned: int
    whole: bool
    contents: Contents
    encoders: Sequence[PictureEncoder]
    sampled: Sequence[int]
    features: SetFeatures
    photos: Sequence[PhotoSubject]
    photo_features: SetFeatures | None

    @property
    def counts(self) -> dict[str, StageCount]:
        return total_counts(self.markers)

    @property
    def sets(self) -> int:
        return sum(each.sets for each in self.markers)

    @property
    def pictures(self) -> int:
        return sum(each.pictures for each in self.markers)

    @property
    def seconds(self) -> dict[str, float]:
        """By step, over all shards and workers."""
        totals: Counter[str] = Counter()
        for marker in self.markers:
            totals.update(marker.seconds)
        return dict(totals)

    @property
    def columns(self) -> list[str]:
        """The encoders' columns."""
        return list(self.features.features)

    def similarity(self, column: str) -> Similarity:
        return self.features.similarity(column)


def read_facts(
    folder: str | Path,
    encoders: Sequence[PictureEncoder] = (),
    photos: Sequence[PhotoSubject] = (),
    sets: int = 1000,
    seed: int = 0,
    visit: Callable[[CollageRecord], None] = lambda collage: None,
) -> Facts:
    """Return the numbers of the whole shards of a run, which may be unfinished.

    sets: of how many sets, drawn by `seed`, the pictures are read; all are counted. visit: is shown every
    collage on the way. Raises DataError where the folder is no run, is damaged, or holds no whole shard.
    """
    output = OutputFolder.open(folder)
    recipe, markers = output.recipe, check_shards(output)
    planned = len(plan_shards(recipe, read_object_names(output.folder / OBJECTS)))
    contents = Contents()
    for collage in read_collages(output):
        contents.add(collage)
        visit(collage)
    sampled = sample(sum(each.sets for each in markers), sets, seed)
    features = SetFeatures(encoders)
    for _, made in read_sets(output, markers, sampled):
        info = made.info
        subject = (info["seed"], info["object"], info["collage"], info["group"])
        features.add(info["object"], subject, made.pictures)
    return Facts(
        folder=output.folder,
        recipe=recipe,
        markers=markers,
        planned=planned,
        whole=output.whole and len(markers) == planned,
        contents=contents,
        encoders=encoders,
        sampled=sampled,
        features=features,
        photos=photos,
        photo_features=_of_photos(photos, encoders) if photos else None,
    )


def check_shards(output: OutputFolder) -> list[Marker]:
    """Return the markers of a run whose shards are as they were written. Raises DataError."""
    markers = output.markers()
    if not markers:
        raise DataError(f"{output.folder} holds no whole shard yet: let `jedi synthesize` finish one first.")
    for marker in markers:
        name = stem(marker.shard)
        if not output.is_whole(marker.shard):
            raise DataError(
                f"Shard {name} of {output.folder} is damaged: a file that its marker names is missing or has "
                "another length; the same `jedi synthesize` command makes it again."
            )
        records = f"{SHARDS}/{name}.records.jsonl"
        if checksum((output.folder / records).read_bytes()) != marker.files[records].checksum:
            raise DataError(
                f"{output.folder / records} is damaged: its checksum is not its marker's; delete "
                f"{SHARDS}/{name}.json, and the same `jedi synthesize` command makes the shard again."
            )
    return markers


def sample(total: int, wanted: int, seed: int) -> list[int]:
    """Return `wanted` of the numbers below `total`, all where there are no more, ascending."""
    if not total:
        return []
    order = Permutation(total, seed)
    return sorted(order(number) for number in range(min(wanted, total)))


def read_sets(
    output: OutputFolder, markers: Sequence[Marker], numbers: Sequence[int]
) -> Iterator[tuple[int, ImageSet]]:
    """Yield (number, set) for ascending numbers over all whole shards. Raises DataError, PictureError."""
    waiting = list(reversed(numbers))
    first = 0
    for marker in markers:
        if waiting and waiting[-1] < first + marker.sets:
            stored = StoredSets(str(output.folder / SHARDS / f"{stem(marker.shard)}.tar"))
            while waiting and waiting[-1] < first + marker.sets:
                number = waiting.pop()
                yield number, stored.stored(number - first).decode(stored.name(number - first))
        first += marker.sets


def _of_photos(photos: Sequence[PhotoSubject], encoders: Sequence[PictureEncoder]) -> SetFeatures:
    features = SetFeatures(encoders)
    for subject in photos:
        pictures: list[Image.Image] = [
            open_picture(photo, decode_size=PHOTO_SIZE) for photo in subject.photos
        ]
        features.add(subject.category, subject.name, pictures)
    return features


def as_json(facts: Facts) -> dict[str, Any]:
    """Return everything as plain JSON values."""
    contents, known = facts.contents, facts.contents.filters.collages > 0
    return {
        "format": "jedi synthesis report 1",
        "run": facts.recipe.name,
        "whole": facts.whole,
        "shards": {"whole": len(facts.markers), "planned": facts.planned},
        "counts": {step: each.as_json() for step, each in facts.counts.items()},
        "seconds": {step: round(each, 3) for step, each in facts.seconds.items()},
        "collages": {"made": contents.collages, "without_sets": contents.empty_collages},
        "training_data": {
            "sets": facts.sets,
            "pictures": facts.pictures,
            "subjects": contents.subjects,
            "categories": len(contents.objects),
            "similarity": _similarities(facts.features),
        },
        "real_photos": _photos_json(facts),
        "encoders": {each.image_column: each.fingerprint for each in facts.encoders if each.image_column},
        "sets_read": len(facts.sampled),
        "near_duplicates": {
            "pairs_inside_sets": _record(facts.features.copies_inside()),
            "pictures_across_sets": _record(facts.features.copies_across()),
        },
        "set_sizes": {str(size): count for size, count in sorted(contents.sizes.items())},
        "objects": dict(contents.objects.most_common()),
        "kinds": dict(contents.categories.most_common()),
        "styles": dict(contents.styles.most_common()),
        "filters": {
            "collages": contents.filters.collages,
            "instances_left_out": contents.filters.lost,
            "scores": {name: each.as_json() for name, each in contents.filters.scores.items()},
        }
        if known
        else None,
        "thresholds": contents.curve.as_json(facts.recipe.stages.affinity),
    }


def _photos_json(facts: Facts) -> dict[str, Any] | None:
    if facts.photo_features is None:
        return None
    return {
        "subjects": len(facts.photos),
        "categories": len({each.category for each in facts.photos}),
        "photos": sum(len(each.photos) for each in facts.photos),
        "similarity": _similarities(facts.photo_features),
    }


def _similarities(features: SetFeatures) -> dict[str, Any]:
    found = {}
    for column in features.features:
        inside, between = features.similarity(column)
        found[column] = {"inside": _record(inside), "between": _record(between)}
    return found


def _record(estimate: Any) -> dict[str, float] | None:
    return None if estimate is None else estimate.record()
