"""`jedi showroom sheet`: sets of the showroom to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jedi_diffusion.errors import UsageError
from jedi_diffusion.pictures import contact_sheet, save_png

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class SheetOptions:
    """A contact sheet of the showroom's sets: a row each, with captions."""

    packages: str
    """Folder that holds the downloaded packages."""
    folder: str
    """Folder that `jedi showroom build` filled."""
    out: str
    """The sheet, a PNG file."""
    sets: int = 40
    """How many sets."""
    pictures: int = 3
    """Pictures of each."""
    split: Literal["train", "held_out"] = "train"
    """Subjects for training, or those that are held out whole."""
    resolution: int = 128
    """Side of a picture in pixels."""
    seed: int = 0
    """Other sets."""


def run(arguments: list[str]) -> None:
    """Compose the sets and write the sheet. Raises JeDiError."""
    given = tyro.cli(SheetOptions, args=arguments, prog="jedi showroom sheet")
    limits = {"sets": (1, 200), "pictures": (1, 8), "resolution": (16, 512), "seed": (0, 2**31)}
    for name, (low, high) in limits.items():
        if not low <= getattr(given, name) <= high:
            raise UsageError(f"--{name} is {getattr(given, name)}, but must lie between {low} and {high}.")
    from jedi_showroom.source import ShowroomSource

    source = ShowroomSource(
        Path(given.packages), Path(given.folder), given.seed, split=given.split, compiled=False
    )
    shown = source.image_sets(0, given.sets, given.pictures, given.resolution)
    rows: list[list[tuple[Image.Image, str] | None]] = [
        list(zip(each.pictures, each.captions, strict=True)) for each in shown
    ]
    save_png(Path(given.out), contact_sheet(rows, title=f"Showroom, split {given.split}, seed {given.seed}"))
    print(f"Contact sheet: {given.out}")
