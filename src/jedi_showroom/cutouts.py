"""Cut-outs of subjects on disk: pictures with alpha and floor shadows, and what is known of each subject."""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jedi_diffusion.errors import DataError
from jedi_diffusion.files import write_file
from jedi_showroom.subjects import Subject

INDEX = "subject.json"
SIDE = 128  # pixels of a cut-out's side
SAMPLES = 25  # rays a pixel of a rendered one
FILL = 0.82  # of its half side that the subject reaches
TANGENT = 0.24  # of half its angle of view


@dataclass(frozen=True)
class Cutout:
    """One view of a subject. rgba (H, H, 4) uint8 sRGB; shadow (H, H) uint8, 255 where its floor is dark;
    angles in radians; tangent of half the angle of view.
    """

    rgba: NDArray[np.uint8]
    shadow: NDArray[np.uint8]
    azimuth: float
    elevation: float
    tangent: float


def folder_of(root: Path, subject: Subject) -> Path:
    return root / subject.key.replace("/", "--")


def write(root: Path, subject: Subject, cutouts: list[Cutout]) -> None:
    """Write a subject's cut-outs; the index comes last, so a folder with one is whole."""
    folder = folder_of(root, subject)
    folder.mkdir(parents=True, exist_ok=True)
    views = []
    for number, cutout in enumerate(cutouts):
        _save(folder / f"{number}.webp", Image.fromarray(cutout.rgba))
        _save(folder / f"{number}.shadow.webp", Image.fromarray(cutout.shadow))
        views.append({"azimuth": cutout.azimuth, "elevation": cutout.elevation, "tangent": cutout.tangent})
    facts = {**asdict(subject), "views": views}
    write_file(folder / INDEX, (json.dumps(facts, indent=1) + "\n").encode())


def views_on_disk(root: Path, subject: Subject) -> int:
    """How many views of the subject are written whole; 0 if none."""
    index = folder_of(root, subject) / INDEX
    return len(json.loads(index.read_text(encoding="utf-8"))["views"]) if index.exists() else 0


def subjects_on_disk(root: Path) -> list[Subject]:
    """Every subject below `root`, sorted by key. Raises DataError if there is none."""
    found = []
    for index in sorted(root.glob(f"*/{INDEX}")):
        facts = json.loads(index.read_text(encoding="utf-8"))
        found.append(Subject(**{name: facts[name] for name in Subject.__dataclass_fields__}))
    if not found:
        raise DataError(f"{root} holds no cut-outs: make them with `jedi showroom build`.")
    return sorted(found, key=lambda each: each.key)


def read(root: Path, subject: Subject, view: int) -> Cutout:
    """View number `view` of the subject, counted modulo the views there are."""
    folder = folder_of(root, subject)
    views = json.loads((folder / INDEX).read_text(encoding="utf-8"))["views"]
    number = view % len(views)
    with Image.open(folder / f"{number}.webp", formats=("WEBP",)) as picture:
        rgba = np.asarray(picture.convert("RGBA"))
    with Image.open(folder / f"{number}.shadow.webp", formats=("WEBP",)) as picture:
        shadow = np.asarray(picture.convert("L"))
    return Cutout(rgba, shadow, **views[number])


def _save(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=picture.mode == "RGBA", quality=80, method=2)
    write_file(path, buffer.getvalue())
