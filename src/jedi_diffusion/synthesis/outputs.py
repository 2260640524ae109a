"""The folder that a synthesis run leaves, and reading it.

    OUT/recipe.json                     the resolved recipe
    OUT/objects.tsv                     the objects: name, tab, category
    OUT/shards/00000.tar                sets in the paper's format, for the source `sets` of `jedi train`
    OUT/shards/00000.tar.index.jsonl    its index
    OUT/shards/00000.records.jsonl      what happened to the shard's objects, one JSON object a line
    OUT/shards/00000.json               the marker (`Marker`), written last: a shard without it is not whole
    OUT/collages/00000/NAME.jpg         the shard's first collages as they were drawn, to look at
    OUT/manifest.jsonl                  once every shard is whole: a header, then a line a shard

A shard of which no set came has no tar. Nothing but `seconds` in a marker depends on the machine: the same
recipe gives the same files and the same manifest, whichever engine and however many workers made them.

Lines of the records, in the order of the objects, for each object first its collages, then its sets, then
what was rejected by stage:

    {"kind": "collage", "object", "category", "collage", "prompt", "seed", "model",
     "look": "collages/00000/NAME.jpg" or null, "truth" where the generator knows it (`protocols.TRUTH`)}
    {"kind": "set", "key" (its name in the tar), "object", "category", "collage", "group", "set", "seed",
     "captions": [...], "pictures": [{"instance": number, "steps": [{"stage": ..., details}, ...]}, ...]}
    {"kind": "rejection", "object", "category", "collage", "group" and "instance" where known, "stage",
     "reason" (a name of `records.Reason`, lower case), "detail", "box" of an instance in its collage,
     "affinities" of an instance that was compared}

The step "instance" of a picture's steps holds its "box" in the collage (left, top, right, bottom), the step
"group" its affinities to all other instances of the collage that were compared, by their numbers, the step
"scene" the prompt and where it was pasted.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from jedi_diffusion.data.record import StoredSet
from jedi_diffusion.data.shards import ShardWriter, checksum
from jedi_diffusion.data.stored import StoredSets
from jedi_diffusion.errors import DataError, RecipeError
from jedi_diffusion.files import RunFolder, make_folder, write_file
from jedi_diffusion.pictures import open_picture
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.recipe import RunSection, ShardPlan, SynthesisRecipe
from jedi_diffusion.synthesis.records import Collage
from jedi_diffusion.synthesis.work import StageCount, Work, in_order

FORMAT: Final = "jedi synthesis 1"
SOURCE = "synthesis"
RECIPE, OBJECTS, SHARDS, COLLAGES, MANIFEST = (
    "recipe.json",
    "objects.tsv",
    "shards",
    "collages",
    "manifest.jsonl",
)
LOOK_QUALITY = 90


class FileMark(BaseModel):
    """A file of a shard: bytes and checksum (`shard_index.checksum`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: NonNegativeInt
    checksum: str


class Count(BaseModel):
    """Records that went into a step and came out of it, and how many were rejected by reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    received: NonNegativeInt
    made: NonNegativeInt
    rejected: dict[str, NonNegativeInt]


class Marker(BaseModel):
    """Says that a shard is whole, and sums it up. counts and seconds are by step (`work.STEP_NAMES`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["jedi synthesis 1"] = FORMAT
    shard: NonNegativeInt
    round: NonNegativeInt
    objects: tuple[str, ...]
    sets: NonNegativeInt
    pictures: NonNegativeInt
    files: dict[str, FileMark]
    counts: dict[str, Count]
    seconds: dict[str, float]

    def step_counts(self) -> dict[str, StageCount]:
        """Return the counts as the engines add them up."""
        return {
            name: StageCount(each.received, each.made, Counter(each.rejected))
            for name, each in self.counts.items()
        }


class OutputFolder:
    """A run's folder, whole or not."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.shards = self.folder / SHARDS

    @classmethod
    def open(cls, folder: str | Path) -> OutputFolder:
        """Return the folder of an earlier run. Raises DataError where there is none."""
        if not (Path(folder) / RECIPE).is_file():
            raise DataError(f"{folder} holds no synthesis: {RECIPE} is missing.")
        return cls(folder)

    @property
    def recipe(self) -> SynthesisRecipe:
        """The resolved recipe of the run. Raises DataError."""
        path = self.folder / RECIPE
        try:
            return SynthesisRecipe.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(f"{path} is no recipe of a synthesis: {_first_fault(error)}.") from error

    @property
    def whole(self) -> bool:
        """Whether every shard of the run is there."""
        return (self.folder / MANIFEST).is_file()

    def markers(self) -> list[Marker]:
        """Return the markers of all whole shards, in order.

        Raises DataError for a marker that cannot be read.
        """
        if not self.shards.is_dir():
            return []
        found = sorted(each for each in self.shards.iterdir() if re.fullmatch(r"\d{5,}\.json", each.name))
        return sorted((_read_marker(each) for each in found), key=lambda marker: marker.shard)

    def records(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the records of all whole shards in order, or those of one kind, each with its "shard".

        Raises DataError.
        """
        for marker in self.markers():
            path = self.shards / f"{stem(marker.shard)}.records.jsonl"
            try:
                with path.open(encoding="utf-8") as lines:
                    for line in lines:
                        record = json.loads(line)
                        if kind is None or record["kind"] == kind:
                            yield {"shard": marker.shard, **record}
            except (OSError, ValueError, KeyError) as error:
                raise DataError(f"{path} is no list of records: {error}.") from error

    def sets(self) -> StoredSets:
        """Return the sets by number: `.stored(item)` has the provenance, `.read(...)` pictures.

        Raises DataError.
        """
        return StoredSets(str(self.shards))

    def collage_picture(self, record: dict[str, Any]) -> Image.Image | None:
        """Return the picture of a record of the kind "collage", None where it was not kept."""
        return open_picture(self.folder / record["look"]) if record["look"] else None

    def prepare(self, recipe: SynthesisRecipe, items: Iterable[ObjectName]) -> None:
        """Make the folder for a run, or check that it is one of the same recipe and objects.

        Raises RecipeError where it is another's, OutputError where it cannot be written.
        """
        make_folder(self.shards)
        for name in (RECIPE, OBJECTS, MANIFEST):
            for left in self.folder.glob(f".{name}.*"):  # of a run that was killed while it wrote it
                left.unlink(missing_ok=True)
        listed = "".join(f"{item.name}\t{item.category}\n" for item in items).encode()
        run = RunFolder(
            self.folder, RECIPE, read=lambda found: SynthesisRecipe.model_validate(found).result_settings()
        )
        if not run.begun:
            write_file(self.folder / OBJECTS, listed)
        run.open(recipe.model_dump(mode="json"))
        if (self.folder / OBJECTS).read_bytes() != listed:
            raise RecipeError(
                f"{self.folder} holds a run of other objects ({OBJECTS}): choose another folder."
            )

    def is_whole(self, number: int) -> bool:
        """Return whether a shard has its marker and every file it names, at full length."""
        path = self.shards / f"{stem(number)}.json"
        if not path.is_file():
            return False
        try:
            files = _read_marker(path).files
        except DataError:
            return False
        # Whoever deletes the pictures of collages does not want them made again.
        needed = {name: mark for name, mark in files.items() if name.startswith(SHARDS)}
        places = ((self.folder / name, mark.size) for name, mark in needed.items())
        return all(place.is_file() and place.stat().st_size == size for place, size in places)

    def clear(self, number: int) -> None:
        """Remove what is there of a shard, the marker first: it is not whole, or was cut short."""
        (self.shards / f"{stem(number)}.json").unlink(missing_ok=True)
        for pattern in (f"{stem(number)}.*", f".{stem(number)}.*"):
            for left in self.shards.glob(pattern):
                left.unlink(missing_ok=True)
        shutil.rmtree(self.folder / COLLAGES / stem(number), ignore_errors=True)

    def write_shard(self, plan: ShardPlan, work: Work, run: RunSection) -> Marker:
        """Write a finished work as a shard, its marker last. Raises OutputError; it is not there then."""
        self.clear(plan.number)
        name = stem(plan.number)
        looks = self._write_looks(name, work.looks)
        stored = _stored(name, work, run)
        records = _lines(plan, work, [each.key for each in stored], looks)
        write_file(self.shards / f"{name}.records.jsonl", records)
        with ShardWriter(self.shards, sets=max(1, len(stored)), size=2**50, first=plan.number) as writer:
            for each in stored:
                writer.write(each)
        endings = (".records.jsonl", *((".tar", ".tar.index.jsonl") if stored else ()))
        made = [self.shards / f"{name}{ending}" for ending in endings]
        files = [*made, *(self.folder / look for look in looks.values())]
        marker = Marker(
            shard=plan.number,
            round=plan.round,
            objects=tuple(item.name for item in plan.items),
            sets=len(stored),
            pictures=sum(len(each.captions) for each in stored),
            files={file.relative_to(self.folder).as_posix(): _mark(file) for file in files},
            counts={step: Count(**each.as_json()) for step, each in work.counts.items()},
            seconds={step: round(each, 3) for step, each in work.seconds.items()},
        )
        write_file(self.shards / f"{name}.json", marker.model_dump_json(indent=1).encode())
        return marker

    def write_manifest(self) -> Path:
        """Return one file over all shards, which must be whole: a header with totals, then a line a shard."""
        markers = self.markers()
        totals = total_counts(markers)
        header = {
            "format": FORMAT,
            "recipe": checksum(json.dumps(self.recipe.result_settings(), sort_keys=True).encode()),
            "objects": checksum((self.folder / OBJECTS).read_bytes()),
            "shards": len(markers),
            "sets": sum(each.sets for each in markers),
            "pictures": sum(each.pictures for each in markers),
            "counts": {step: each.as_json() for step, each in totals.items()},
        }
        lines = [header, *(each.model_dump(mode="json", exclude={"format", "seconds"}) for each in markers)]
        path = self.folder / MANIFEST
        write_file(path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode())
        return path

    def _write_looks(self, name: str, looks: Iterable[Collage]) -> dict[tuple[str, int], str]:
        """Return the pictures of some collages as files: {(object, collage): path below the folder}."""
        written: dict[tuple[str, int], str] = {}
        for collage in looks:
            item, number = collage.key.item.name, collage.key.collage
            own = f"{len(written):03d}-{re.sub(r'[^A-Za-z0-9]+', '-', item)[:40]}-{number}"
            place = f"{COLLAGES}/{name}/{own}.jpg"
            make_folder((self.folder / place).parent)
            write_file(self.folder / place, _as_jpeg(collage.picture))
            written[item, number] = place
        return written


def stem(number: int) -> str:
    """Return how a shard's files are called."""
    return f"{number:05d}"


def total_counts(markers: Iterable[Marker]) -> dict[str, StageCount]:
    """Return the counts of all shards together, by step."""
    totals: dict[str, StageCount] = {}
    for marker in markers:
        for step, each in marker.step_counts().items():
            totals.setdefault(step, StageCount()).add(each)
    return totals


def _stored(name: str, work: Work, run: RunSection) -> list[StoredSet]:
    """Return a work's sets, encoded; a set's key is its shard and its number there."""
    return [
        StoredSet.encode(
            f"{name}-{number:05d}",
            replace(each, subject=each.info["object"], source=SOURCE),
            run.pictures,
            run.quality,
        )
        for number, each in enumerate(work.sets)
    ]


def _lines(plan: ShardPlan, work: Work, keys: list[str], looks: dict[tuple[str, int], str]) -> bytes:
    """Return the shard's records, object by object."""
    collages: dict[str, list[dict[str, Any]]] = {item.name: [] for item in plan.items}
    for each in work.collages:
        look = looks.get((each["object"], each["collage"]))
        collages[each["object"]].append({"kind": "collage", **each, "look": look})
    sets: dict[str, list[dict[str, Any]]] = {item.name: [] for item in plan.items}
    for key, made in zip(keys, work.sets, strict=True):
        record = {"kind": "set", "key": key, "captions": list(made.captions), **made.info}
        sets[made.info["object"]].append(record)
    rejected: dict[str, list[dict[str, Any]]] = {item.name: [] for item in plan.items}
    for rejection in in_order(plan.items, work.rejected):
        rejected[rejection.key.item.name].append({"kind": "rejection", **rejection.as_json()})
    rows = [row for item in plan.items for rows in (collages, sets, rejected) for row in rows[item.name]]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _as_jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=LOOK_QUALITY)
    return data.getvalue()


def _mark(path: Path) -> FileMark:
    data = path.read_bytes()
    return FileMark(size=len(data), checksum=checksum(data))


def _read_marker(path: Path) -> Marker:
    try:
        return Marker.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} is no marker of a shard: {_first_fault(error)}.") from error


def _first_fault(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'its form'}: {first['msg']}"
