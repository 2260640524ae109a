"""What is to be drawn and what it is compared with: subjects, their photos, prompts, and cases.

Letters: P true photos of a subject; K pictures of one prompt from as many seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jedi_diffusion.errors import DataError, UsageError
from jedi_diffusion.files import files_in, is_mask, plain_name, stem_of
from jedi_diffusion.pictures import is_picture


class Photo(NamedTuple):
    """A true photo (or render) of a subject, and its mask where one is given."""

    path: Path
    mask: Path | None = None

    @property
    def stem(self) -> str:
        """The file's name without its ending, as text that compares."""
        return plain_name(self.path.stem)


@dataclass(frozen=True)
class Subject:
    """A subject with its P photos and what is asked for.

    noun: its class ("stuffed animal"); kind: a coarser group ("live", "object"), or "". prompts: in the
    words that models get. truths: a true picture for each prompt, where there are any. called: what captions
    call it; its class if empty.
    """

    name: str
    noun: str
    photos: tuple[Photo, ...]
    prompts: tuple[str, ...]
    kind: str = ""
    truths: tuple[Photo, ...] = ()
    called: str = ""

    @property
    def caption(self) -> str:
        """What its photos show, in words."""
        name = self.called or self.noun
        return f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"


class Case(NamedTuple):
    """One picture to be made: of the subject, from its photos `inputs`, for one prompt, with one seed."""

    subject: Subject
    inputs: tuple[int, ...]
    prompt: int
    sample: int

    @property
    def text(self) -> str:
        return self.subject.prompts[self.prompt]

    @property
    def group(self) -> str:
        """The folder of all pictures from the same inputs: "dog6/02", or "dog6/00+02+04"."""
        return f"{self.subject.name}/" + "+".join(self.subject.photos[each].stem for each in self.inputs)

    @property
    def name(self) -> str:
        """The picture's file in a folder of pictures, without its ending: "dog6/02/07_0"."""
        return f"{self.group}/{self.prompt:02d}_{self.sample}"

    @property
    def seed(self) -> int:
        """A number below 2^31 of its own: the same for every method, and for every program."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class EvaluationSet:
    """Subjects, for each the inputs that pictures are made from, and K pictures a prompt.

    settings: what made it, as plain JSON values, for the results.
    """

    name: str
    subjects: tuple[Subject, ...]
    inputs: dict[str, list[tuple[int, ...]]]
    samples: int
    settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """All pictures to be made, those from the same inputs beside each other."""
        return tuple(
            Case(subject, inputs, prompt, sample)
            for subject in self.subjects
            for inputs in self.inputs[subject.name]
            for prompt in range(len(subject.prompts))
            for sample in range(self.samples)
        )

    def groups(self) -> Iterator[list[Case]]:
        """Yield the cases of each subject and inputs."""
        for _, group in groupby(self.cases, key=lambda case: case.group):
            yield list(group)

    def plan(self) -> list[dict[str, Any]]:
        """Return the cases as plain JSON values: what another program needs to make the pictures."""
        return [
            {
                "file": f"{case.name}.png",
                "subject": case.subject.name,
                "class": case.subject.noun,
                "references": [str(case.subject.photos[each].path) for each in case.inputs],
                "prompt": case.text,
                "seed": case.seed,
            }
            for case in self.cases
        ]


Inputs = Literal["picks", "all"]


def choose_inputs(
    subject: Subject, references: int, which: Inputs, picks: dict[str, str], seed: int = 0
) -> list[tuple[int, ...]]:
    """Return the inputs of a subject, each `references` photos: one choice (picks), or one led by every photo
    (all).

    picks: the leading photo (its file's stem) by the subject's name. The leader of others, and all further
    photos, are drawn by names and `seed` alone, so that every program can draw the same. Equal choices
    count once. Raises UsageError if there are too few photos.
    """
    stems = [photo.stem for photo in subject.photos]
    if references > len(stems):
        raise UsageError(
            f"The subject {subject.name} has {len(stems)} photos, but {references} references are asked for."
        )

    def drawn(leader: str) -> list[int]:
        texts = [f"{seed} {subject.name} {leader} {stem}" for stem in stems]
        return sorted(range(len(stems)), key=lambda number: hashlib.sha256(texts[number].encode()).digest())

    leaders: Sequence[int] = range(len(stems))
    if which == "picks":
        leaders = [stems.index(picks[subject.name]) if subject.name in picks else drawn("")[0]]
    choices = []
    for leader in leaders:
        others = [number for number in drawn(stems[leader]) if number != leader]
        choices.append(tuple(sorted([leader, *others[: references - 1]])))
    return list(dict.fromkeys(choices))


def photos_in(folder: Path) -> tuple[Photo, ...]:
    """Return the photos of a folder in natural order, with the masks beside them.

    Raises DataError if there are none.
    """
    files = files_in(folder)
    masks = {plain_name(stem_of(each.name)): each for each in files if is_mask(each.name)}
    photos = [Photo(each) for each in files if is_picture(each)]
    if not photos:
        raise DataError(f"The folder {folder} holds no photos.")
    stems = [each.stem for each in photos]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise DataError(f"The folder {folder} holds two photos called {twice}; rename one.")
    return tuple(each._replace(mask=masks.get(each.stem)) for each in photos)
