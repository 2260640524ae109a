"""DreamBench: the 30 subjects and 25 prompts of google/dreambooth, from a clone of it.

Section 4 of the paper. Classes and prompts are read from the clone's prompts_and_classes.txt, the unique
token dropped and the class word kept.
"""

from __future__ import annotations

import re
from pathlib import Path

from jedi_diffusion.errors import DataError
from jedi_diffusion.evaluation.cases import EvaluationSet, Inputs, Subject, choose_inputs, photos_in
from jedi_diffusion.files import folders_in, plain_name, read_text

LIST = "prompts_and_classes.txt"
LIVE_CLASSES = ("cat", "dog")
"""The list has prompts for live subjects, but does not say which subjects live."""
TEMPLATE = re.compile(r"^\s*'(.*)'\.format\(unique_token, class_token\),?\s*$", re.MULTILINE)

PICKS = {
    "backpack": "02",
    "backpack_dog": "02",
    "bear_plushie": "03",
    "berry_bowl": "02",
    "can": "01",
    "candle": "02",
    "cat": "04",
    "cat2": "02",
    "clock": "03",
    "colorful_sneaker": "01",
    "dog": "02",
    "dog2": "02",
    "dog3": "05",
    "dog5": "00",
    "dog6": "02",
    "dog7": "01",
    "dog8": "04",
    "duck_toy": "01",
    "fancy_boot": "02",
    "grey_sloth_plushie": "04",
    "monster_toy": "04",
    "pink_sunglasses": "04",
    "poop_emoji": "00",
    "rc_car": "03",
    "red_cartoon": "00",
    "robot_toy": "00",
    "shiny_sneaker": "01",
    "teapot": "04",
    "vase": "02",
    "wolf_plushie": "04",
}
"""The input photo of each subject that Kosmos-G, OmniGen, UNO and others share."""


def open_dreambench(
    data: str | Path,
    references: int = 1,
    inputs: Inputs = "picks",
    samples: int = 4,
    subjects: tuple[str, ...] = (),
    seed: int = 0,
) -> EvaluationSet:
    """Return the evaluation set from a clone of google/dreambooth, or from its folder `dataset`.

    inputs: the 30 fixed picks, or all 158 photos in turn; samples: pictures a prompt; subjects: some of
    them, none for all 30; seed: draws the further photos of several references. Raises DataError where
    files are missing or more are there than the list says.
    """
    folder = Path(data)
    if (folder / "dataset").is_dir():
        folder = folder / "dataset"
    classes, prompts = read_list(folder / LIST)
    strays = {plain_name(each.name) for each in folders_in(folder)} - classes.keys()
    if strays:
        raise DataError(f"{folder} has the folder {sorted(strays)[0]}, which {LIST} does not list.")
    unknown = sorted(set(subjects) - classes.keys())
    if unknown:
        raise DataError(f"DreamBench has no subject {unknown[0]!r}; {folder / LIST} lists them.")
    chosen = [name for name in classes if not subjects or name in subjects]
    found = tuple(_subject(folder / name, classes[name], prompts) for name in chosen)
    return EvaluationSet(
        name="dreambench",
        subjects=found,
        inputs={each.name: choose_inputs(each, references, inputs, PICKS, seed) for each in found},
        samples=samples,
        settings={
            "protocol": "dreambench",
            "references": references,
            "inputs": inputs,
            "samples": samples,
            "subjects": len(found),
            "seed": seed,
        },
    )


def read_list(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return classes by subject, and the prompts for objects and for live subjects, with {} for the class
    word.

    Raises DataError if the file is missing or not as it was published.
    """
    try:
        text = read_text(path)
    except DataError as error:
        raise DataError(f"{error} Give a clone of github.com/google/dreambooth.") from error
    parts = re.split(r"^(?:Object|Live Subject) Prompts", text, flags=re.MULTILINE)
    head, objects, live = (*parts, "", "")[:3]
    classes = dict(re.findall(r"^(\w+),([\w ]+?)\s*$", head, re.MULTILINE))
    classes.pop("subject_name", None)
    prompts = {"object": _templates(objects), "live": _templates(live)}
    if not classes or not all(prompts.values()):
        raise DataError(f"{path} does not list classes and prompts as it was published.")
    return classes, prompts


def _templates(text: str) -> list[str]:
    """Return 'a {0} {1} in the snow' as "a {} in the snow"."""
    return [each.replace("{0} ", "").replace("{1}", "{}") for each in TEMPLATE.findall(text)]


def _subject(folder: Path, noun: str, prompts: dict[str, list[str]]) -> Subject:
    if not folder.is_dir():
        raise DataError(f"The folder {folder} is missing: DreamBench needs all its subjects.")
    kind = "live" if noun in LIVE_CLASSES else "object"
    return Subject(
        name=folder.name,
        noun=noun,
        photos=photos_in(folder),
        prompts=tuple(each.replace("{}", noun) for each in prompts[kind]),
        kind=kind,
    )
