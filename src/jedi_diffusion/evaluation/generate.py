"""Pictures for every case from a Personalizer, each once: a stopped run goes on where it was.

A picture is written whole or not at all, so one that is there is done. `method.json` beside the pictures says
what they were made with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from jedi_diffusion.errors import ModelError, OutputError
from jedi_diffusion.evaluation.cases import Case, EvaluationSet
from jedi_diffusion.files import RunFolder, make_folder
from jedi_diffusion.options import without_defaults
from jedi_diffusion.personalizer import Personalizer
from jedi_diffusion.pictures import open_picture, save_png

RECORD = "method.json"


def open_method_folder(folder: str | Path, record: Mapping[str, Any]) -> Path:
    """Return the folder for a method's pictures, for this `record` (plain JSON values) only.

    Raises RecipeError where it holds pictures that were made with another one, OutputError.
    """
    return RunFolder(
        Path(folder),
        RECORD,
        "holds pictures that were made otherwise",
        "choose another folder, or another name for the method",
        _compared,
    ).open(record)


def _compared(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without the sampling settings that have their defaults."""
    return {name: without_defaults(each) if isinstance(each, dict) else each for name, each in record.items()}


def pending(wanted: EvaluationSet, folder: Path) -> list[list[Case]]:
    """Return the cases that have no picture yet, those from the same inputs together."""
    left = ([case for case in group if not _file(folder, case).exists()] for group in wanted.groups())
    return [group for group in left if group]


def generate(wanted: EvaluationSet, personalizer: Personalizer, folder: Path, batch: int = 4) -> int:
    """Make what is missing, `batch` pictures a call, and return how many were made.

    Raises what the personalizer raises, ModelError for a wrong number of pictures, OutputError.
    """
    _sweep(folder)
    groups = pending(wanted, folder)
    with tqdm(total=sum(map(len, groups)), desc=folder.name, unit="picture") as bar:
        for group in groups:
            references = open_references(group[0])
            make_folder(_file(folder, group[0]).parent)
            for start in range(0, len(group), batch):
                some = group[start : start + batch]
                for case, picture in zip(some, _made(personalizer, references, some), strict=True):
                    save_png(_file(folder, case), picture, _parameters(case))
                bar.update(len(some))
    return sum(map(len, groups))


def open_references(case: Case) -> list[Image.Image]:
    """Return the input photos of a case, RGB. Raises PictureError."""
    return [open_picture(case.subject.photos[number].path) for number in case.inputs]


def _made(
    personalizer: Personalizer, references: Sequence[Image.Image], cases: Sequence[Case]
) -> list[Image.Image]:
    captions = [case.subject.caption for case in cases[:1]] * len(references)
    made = personalizer(references, captions, [case.text for case in cases], [case.seed for case in cases])
    if len(made) != len(cases):
        raise ModelError(f"The method answered {len(cases)} prompts with {len(made)} pictures.")
    return made


def _file(folder: Path, case: Case) -> Path:
    return folder / f"{case.name}.png"


def _parameters(case: Case) -> dict[str, Any]:
    return {"subject": case.subject.name, "inputs": case.group, "prompt": case.text, "seed": case.seed}


def _sweep(folder: Path) -> None:
    """Remove what a killed run was writing."""
    for path in folder.rglob(".*.png.*"):
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(f"{path} cannot be removed: {error.strerror}.") from error
