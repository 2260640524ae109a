"""`jedi showroom sets`: sets of the showroom as files, and a sheet to look at."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jedi_diffusion.files import make_folder, replaced_folder, write_file
from jedi_diffusion.options import check_options
from jedi_diffusion.pictures import contact_sheet, save_png

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.sets import ImageSet

SHEET, SUBJECTS = "sheet.png", "subjects"


@dataclass(frozen=True)
class SetsOptions:
    """Write sets of the showroom: a folder of pictures and masks for each, and a contact sheet.

    OUT/subjects is what `jedi photos score` and `jedi data pack` take as folders of photos.
    """

    packages: str
    """Folder that holds the downloaded packages."""
    folder: str
    """Folder that `jedi showroom build` filled."""
    out: str
    """Folder for the sets and the sheet; OUT/subjects is replaced."""
    sets: int = 40
    """How many sets."""
    pictures: int = 3
    """Pictures of each."""
    split: Literal["train", "held_out"] = "train"
    """Subjects for training, or those that are held out whole."""
    alike: float = 0.85
    """Share of the sets whose pictures show one view at one place in the frame."""
    resolution: int = 128
    """Side of a picture in pixels."""
    seed: int = 0
    """Other sets."""


def run(arguments: list[str]) -> None:
    """Compose the sets and write them. Raises JeDiError."""
    given = tyro.cli(SetsOptions, args=arguments, prog="jedi showroom sets")
    limits = {
        "sets": (1, 1000),
        "pictures": (1, 16),
        "resolution": (16, 512),
        "seed": (0, 2**31),
        "alike": (0, 1),
    }
    check_options(given, limits)
    from jedi_showroom.source import ShowroomSource

    places = Path(given.packages), Path(given.folder)
    source = ShowroomSource(*places, given.seed, given.alike, given.split, compiled=False)
    shown = source.image_sets(0, given.sets, given.pictures, given.resolution)
    out = make_folder(given.out)
    with replaced_folder(out / SUBJECTS) as partial:
        for number, image_set in enumerate(shown):
            write_set(partial, number, image_set)
    rows: list[list[tuple[Image.Image, str] | None]] = [
        list(zip(each.pictures, each.captions, strict=True)) for each in shown[:40]
    ]
    save_png(out / SHEET, contact_sheet(rows, title=f"Showroom, split {given.split}, seed {given.seed}"))
    print(f"{given.sets} sets are in {out / SUBJECTS}")
    print(f"Contact sheet: {out / SHEET}")


def write_set(folder: Path, number: int, image_set: ImageSet) -> None:
    """Write picture k as k.png, its caption and mask beside it, and the subject's class."""
    noun = image_set.info["name"].split(" ", 1)[1]
    home = make_folder(folder / f"{number:03d}-{noun.replace(' ', '-')}")
    for k, (picture, caption) in enumerate(zip(image_set.pictures, image_set.captions, strict=True)):
        save_png(home / f"{k}.png", picture)
        write_file(home / f"{k}.txt", f"{caption}\n".encode())
    for k, mask in enumerate(image_set.masks or ()):
        save_png(home / f"{k}.mask.png", mask)
    write_file(home / "subject.json", (json.dumps({"class": noun}) + "\n").encode())
