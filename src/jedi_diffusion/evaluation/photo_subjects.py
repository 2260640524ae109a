"""Photographed subjects, each to be shown in a few places: a folder of photos as an evaluation set.

A clone of google/dreambooth (its classes and shared input photos), or a folder with a subfolder of photos for
each subject, whose class is that of `subject.json`, else the folder's name in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jedi_diffusion.evaluation.cases import EvaluationSet, Photo, Subject, choose_inputs, photos_in
from jedi_diffusion.evaluation.dreambench import LIST, LIVE_CLASSES, PICKS, read_list
from jedi_diffusion.evaluation.own_subjects import RECORD, homes_in, noun_of, read_record
from jedi_diffusion.files import plain_name

PLACES = ("on the beach", "in the snow", "on a wooden floor")


def open_photo_subjects(
    data: str | Path, places: Sequence[str] = PLACES, called: str | None = None, seed: int = 0
) -> EvaluationSet:
    """Return the subjects of a folder, one input photo each, with a prompt for each place.

    called: what every subject is called in prompts and captions ("toy"), for models that do not know the
    classes' words. seed: draws the input photos that DreamBench does not fix. Raises DataError where there
    are no photos.
    """
    folder = Path(data)
    if (folder / "dataset" / LIST).is_file():
        folder = folder / "dataset"
    listed = read_list(folder / LIST)[0] if (folder / LIST).is_file() else {}
    subjects = []
    for home in homes_in(folder):
        noun = listed.get(home.name) or noun_of(home, read_record(home / RECORD))
        kind = "live" if noun in LIVE_CLASSES else "object"
        plain = Subject(plain_name(home.name), noun, photos_in(home), (), kind, called=called or "")
        subjects.append(replace(plain, prompts=tuple(f"{plain.caption} {place}" for place in places)))
    inputs = {each.name: choose_inputs(each, 1, "picks", PICKS if listed else {}, seed) for each in subjects}
    settings = {"protocol": "photos", "references": 1, "places": list(places), "called": called, "seed": seed}
    return EvaluationSet("photos", tuple(subjects), inputs, 1, settings | {"subjects": len(subjects)})


def inputs_of(wanted: EvaluationSet) -> list[Photo]:
    """Return the input photo of each subject."""
    return [each.photos[number] for each in wanted.subjects for number in wanted.inputs[each.name][0]]
