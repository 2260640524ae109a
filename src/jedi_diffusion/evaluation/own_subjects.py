"""A folder of own subjects as an evaluation set; one photo of each is enough (Table 5 of the paper).

    DATA/prompts.txt            one prompt a line, {} where the class word goes
    DATA/cat_statue/00.jpg      the photos of a subject, one or more; 00.mask.png beside it is its mask
    DATA/cat_statue/subject.json    optional: {"class": "statue", "kind": "object", "prompts": [...]}
    DATA/cat_statue/truth/00.png    optional: a true picture for each prompt, by the prompt's number

The class word is that of subject.json, else the folder's name in words.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jedi_diffusion.data.folders import words_of
from jedi_diffusion.errors import DataError
from jedi_diffusion.evaluation.cases import EvaluationSet, Inputs, Photo, Subject, choose_inputs, photos_in
from jedi_diffusion.files import folders_in, is_utf8, lines_of, plain_name, read_text

PROMPTS = "prompts.txt"
RECORD = "subject.json"
TRUTHS = "truth"


class SubjectRecord(BaseModel):
    """What subject.json may say. `inputs`: the stems of the photos that may be references, the pick first."""

    model_config = ConfigDict(extra="forbid")

    noun: str | None = Field(None, alias="class")
    kind: str = ""
    prompts: list[str] | None = None
    inputs: list[str] | None = None


def open_own_subjects(
    data: str | Path,
    references: int = 1,
    inputs: Inputs = "picks",
    samples: int = 4,
    name: str = "folder",
    seed: int = 0,
) -> EvaluationSet:
    """Return the evaluation set of a folder, laid out as above.

    inputs: one choice a subject (picks), or one led by every photo (all).

    Raises DataError or UsageError, which name what is missing.
    """
    folder = Path(data)
    homes = homes_in(folder)
    common = _lines(folder / PROMPTS)
    found, chosen = [], {}
    for home in homes:
        subject, allowed = _subject(home, common)
        found.append(subject)
        chosen[subject.name] = _inputs(subject, allowed, references, inputs, seed)
    return EvaluationSet(
        name=name,
        subjects=tuple(found),
        inputs=chosen,
        samples=samples,
        settings={
            "protocol": name,
            "references": references,
            "inputs": inputs,
            "samples": samples,
            "subjects": len(found),
            "seed": seed,
        },
    )


def homes_in(folder: Path) -> list[Path]:
    """Return the folders of the subjects. Raises DataError if there are none."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.")
    homes = folders_in(folder)
    if not homes:
        raise DataError(f"{folder} holds no subfolders with photos, one a subject.")
    return homes


def _subject(home: Path, common: list[str]) -> tuple[Subject, list[int]]:
    """Return the subject of a folder, and the numbers of the photos that may be references."""
    record = read_record(home / RECORD)
    name = plain_name(home.name)
    noun = noun_of(home, record)
    prompts = [line.replace("{}", noun) for line in record.prompts or common]
    if not prompts:
        raise DataError(
            f"There are no prompts for {home.name}: write {home.parent / PROMPTS}, one a line, such as "
            '"a {} in the snow".'
        )
    photos = photos_in(home)
    stems = [photo.stem for photo in photos]
    listed = [plain_name(each) for each in record.inputs or stems]
    unknown = sorted(set(listed) - set(stems))
    if unknown:
        raise DataError(f"{home / RECORD} lists the input {unknown[0]}, but there is no such photo.")
    allowed = [stems.index(each) for each in listed]
    truths = photos_in(home / TRUTHS) if (home / TRUTHS).is_dir() else ()
    if truths and [each.stem for each in truths] != [f"{k:02d}" for k in range(len(prompts))]:
        raise DataError(
            f"{home / TRUTHS} must hold a picture for each of the {len(prompts)} prompts: 00.png, 01.png ..."
        )
    return Subject(name, noun, photos, tuple(prompts), record.kind, truths), allowed


def noun_of(home: Path, record: SubjectRecord) -> str:
    """Return the class word of a subject: its record's, else its folder's name in words. Raises DataError."""
    if record.noun is None and not is_utf8(home.name):
        raise DataError(
            f"The name of {home} is not UTF-8, so it cannot be the class: rename the folder, or write it in "
            f"{RECORD}."
        )
    return record.noun or words_of(home.name)


def _inputs(
    subject: Subject, allowed: list[int], references: int, which: Inputs, seed: int
) -> list[tuple[int, ...]]:
    """As `choose_inputs`, among the allowed photos."""
    photos: tuple[Photo, ...] = tuple(subject.photos[number] for number in allowed)
    some = Subject(subject.name, subject.noun, photos, subject.prompts)
    chosen = choose_inputs(some, references, which, {subject.name: photos[0].stem}, seed)
    return [tuple(allowed[number] for number in each) for each in chosen]


def read_record(path: Path) -> SubjectRecord:
    """Return what a subject.json says; nothing where there is none. Raises DataError."""
    if not path.is_file():
        return SubjectRecord.model_validate({})
    try:
        return SubjectRecord.model_validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its top level"
        raise DataError(f"{path} is wrong at {place}: {first['msg']}.") from error


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return [line.strip() for line in lines_of(read_text(path)) if line.strip()]
