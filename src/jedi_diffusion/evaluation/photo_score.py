"""What `jedi photos score` says of a model: one more known answer, a table and a sheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from jedi_diffusion.evaluation.cases import Case, EvaluationSet
from jedi_diffusion.evaluation.outputs import shown
from jedi_diffusion.evaluation.photo_subjects import inputs_of
from jedi_diffusion.evaluation.scale import scaled_columns
from jedi_diffusion.evaluation.scoring import COPIES, Results, column, rival
from jedi_diffusion.page.tables import plain
from jedi_diffusion.pictures import contact_sheet, fit_square, open_picture

if TYPE_CHECKING:
    from jedi_diffusion.pipeline import JeDiPipeline

MODEL = "model"
SWAPPED = "its pictures of another subject"


def swapped(made: Mapping[Case, Path], wanted: EvaluationSet) -> dict[str, dict[Case, Path]]:
    """Return each subject's cases answered by the model's pictures of its rival: what the place alone scores.

    Empty where there is one subject only.
    """
    found = {}
    for case in made:
        other = rival(case.subject, wanted.subjects)
        if other is None:
            return {}
        found[case] = made[Case(other, wanted.inputs[other.name][0], case.prompt, case.sample)]
    return {SWAPPED: found}


def psnr_of(pipe: JeDiPipeline, wanted: EvaluationSet, size: int) -> float:
    """Return the mean PSNR in dB with which the model's autoencoder gives the input photos back."""
    from jedi_diffusion.networks.reconstruction import reconstruct

    photos = [fit_square(open_picture(photo.path), size) for photo in inputs_of(wanted)]
    return round(float(reconstruct(pipe.vae, photos)[1].mean()), 2)


def table(results: Results, encoder: str) -> str:
    """Return identity by `encoder` (an image column), place, class and copies of every row, as text."""
    scaled = scaled_columns(results)
    texts = [name for name in ("place", "class") if name in results.columns]
    rows = [
        [
            row.name,
            shown(scaled[row.name][encoder]),
            *(shown(row.scores[name]) for name in texts),
            shown(row.scores[COPIES], percent=True),
        ]
        for row in results.rows
    ]
    return plain(["", "identity", *texts, "copies"], rows)


def sheet(made: Mapping[Case, Path], results: Results, encoder: str, size: int) -> Image.Image:
    """Return a row for each subject: the photo that was given, and the pictures with their cosine."""
    (scored,) = (row for row in results.rows if row.name == MODEL)
    likeness = scored.values[column(encoder, "others")]
    rows: dict[str, list[tuple[Image.Image, str] | None]] = {}
    for answer, cosine in zip(scored.answers, likeness, strict=True):
        case = answer.case
        photo = case.subject.photos[case.inputs[0]].path
        row = rows.setdefault(
            case.subject.name, [(fit_square(open_picture(photo), size), f"{case.subject.name}: the photo")]
        )
        row.append((open_picture(made[case]), f"{case.text}: {cosine:.2f}"))
    return contact_sheet(
        list(rows.values()), cell=size, title="Photos, and new pictures with their likeness to other photos"
    )
