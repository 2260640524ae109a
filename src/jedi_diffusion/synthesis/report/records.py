"""A run's records put in order again: each collage with its instances and what became of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from jedi_diffusion.synthesis.outputs import OutputFolder
from jedi_diffusion.synthesis.protocols import TRUTH
from jedi_diffusion.synthesis.records import Stage

Box = tuple[int, int, int, int]


@dataclass
class InstanceRecord:
    """What was found in a collage: where, and how far it came.

    box: left, top, right, bottom, in pixels of the collage. dropped: the (stage, reason) that ended it, None
    where it is in a set. affinities: to the others of its collage, None where it was not compared.
    """

    number: int
    box: Box
    dropped: tuple[Stage, str] | None = None
    group: int | None = None
    set: int | None = None
    affinities: dict[int, float] | None = None

    @property
    def compared(self) -> bool:
        """Whether it passed the filters of single instances."""
        return self.affinities is not None


@dataclass
class CollageRecord:
    """A collage: its record in the output, the sets that came of it, and its instances by number.

    lost: the instances that were rejected later than by stage 4, whose places are not in the records.
    """

    record: dict[str, Any]
    sets: list[dict[str, Any]] = field(default_factory=list)
    instances: list[InstanceRecord] = field(default_factory=list)
    lost: int = 0

    @property
    def panels(self) -> list[dict[str, Any]] | None:
        """What was drawn, where the generator knew it (`protocols.TRUTH`)."""
        known: list[dict[str, Any]] | None = self.record.get(TRUTH, {}).get("panels")
        return known

    @property
    def name(self) -> str:
        return f"{self.record['object']}, collage {self.record['collage']}"


def read_collages(output: OutputFolder) -> Iterator[CollageRecord]:
    """Yield the collages of all whole shards, in order. Raises DataError."""
    for _, records in groupby(output.records(), key=lambda each: (each["shard"], each["object"])):
        found: dict[int, CollageRecord] = {}
        for record in records:
            number = record["collage"]
            if record["kind"] == "collage":
                found[number] = CollageRecord(record)
            elif number in found:  # not where no collage could be drawn
                _add(found[number], record)
        for collage in found.values():
            collage.instances.sort(key=lambda each: each.number)
            yield collage


def step_of(picture: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Return what a stage noted of a set's picture, {} where it noted nothing."""
    return next((step for step in picture["steps"] if step["stage"] == stage), {})


def _add(collage: CollageRecord, record: dict[str, Any]) -> None:
    if record["kind"] == "set":
        collage.sets.append(record)
        collage.instances += [_in_a_set(record, picture) for picture in record["pictures"]]
    elif "instance" in record and "box" in record:
        collage.instances.append(
            InstanceRecord(
                record["instance"],
                tuple(record["box"]),
                (Stage(record["stage"]), record["reason"]),
                affinities=_numbered(record.get("affinities")),
            )
        )
    elif "instance" in record:
        collage.lost += 1


def _in_a_set(record: dict[str, Any], picture: dict[str, Any]) -> InstanceRecord:
    return InstanceRecord(
        picture["instance"],
        tuple(step_of(picture, Stage.INSTANCE)["box"]),
        group=record["group"],
        set=record["set"],
        affinities=_numbered(step_of(picture, Stage.GROUP)["affinities"]),
    )


def _numbered(affinities: dict[str, float] | None) -> dict[int, float] | None:
    return None if affinities is None else {int(number): each for number, each in affinities.items()}
