"""The folder that scored pictures lie in, and what can be wrong with it.

    PICTURES/<subject>/<input>/<prompt>_<sample>.png

<input> is the stem of the input photo ("02"), several joined by + in order ("00+02+04"); <prompt> counts the
subject's prompts from 00, <sample> the pictures of a prompt from 0. `Case.name` is this path.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jedi_diffusion.errors import DataError
from jedi_diffusion.evaluation.cases import Case, EvaluationSet
from jedi_diffusion.files import folders_in, plain_name
from jedi_diffusion.pictures import pictures_in


def find_pictures(folder: str | Path, wanted: EvaluationSet) -> dict[Case, Path]:
    """Return the picture of every case. Other files than pictures are not looked at.

    Raises DataError for a folder of an unknown subject, a missing picture and one too many, with its name
    and how many there are of its kind.
    """
    home = Path(folder)
    if not home.is_dir():
        raise DataError(f"There is no folder of pictures {home}.")
    _check_subjects(home, wanted)
    found = _pictures_below(home)
    expected = {case.name: case for case in wanted.cases}
    doubled = sorted(name for name, paths in found.items() if len(paths) > 1)
    if doubled:
        one, two = (path.name for path in found[doubled[0]][:2])
        raise DataError(f"{home / doubled[0]} is there twice, as {one} and {two}; remove one.")
    missing = [name for name in expected if name not in found]
    if missing:
        raise DataError(
            f"The picture {home / missing[0]}.png is missing{_and_more(missing)}: {len(expected)} pictures "
            f"are needed ({wanted.samples} for each prompt), {len(expected) - len(missing)} are there."
        )
    strays = sorted(found.keys() - expected.keys())
    if strays:
        raise DataError(
            f"The picture {found[strays[0]][0]} belongs to no case{_and_more(strays)}: remove it, or check "
            "the inputs, references and samples that are asked for."
        )
    return {case: found[name][0] for name, case in expected.items()}


def _check_subjects(home: Path, wanted: EvaluationSet) -> None:
    names = {plain_name(each.name) for each in folders_in(home)}
    unknown = sorted(names - {subject.name for subject in wanted.subjects})
    if unknown:
        raise DataError(
            f"{home / unknown[0]} is of no subject of {wanted.name}; its subjects are "
            f"{_some(subject.name for subject in wanted.subjects)}."
        )


def _pictures_below(home: Path) -> dict[str, list[Path]]:
    """Return pictures of all folders below, hidden ones apart, by their path without the ending
    (`plain_name`).
    """
    found: dict[str, list[Path]] = {}
    folders = [home]
    while folders:
        folder = folders.pop()
        folders += reversed(folders_in(folder))
        for path in pictures_in(folder):
            name = path.relative_to(home).with_suffix("").as_posix()
            found.setdefault(plain_name(name), []).append(path)
    return found


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _some(names: Iterable[str], shown: int = 5) -> str:
    listed = list(names)
    rest = len(listed) - shown
    return ", ".join(listed[:shown]) + (f" and {rest} more" if rest > 0 else "")
