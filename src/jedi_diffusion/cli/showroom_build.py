"""`jedi showroom build`: cut-outs of the showroom's subjects, from downloaded packages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from tqdm import tqdm

from jedi_diffusion.files import make_folder
from jedi_diffusion.options import check_options

if TYPE_CHECKING:
    from jedi_showroom.subjects import Subject


@dataclass(frozen=True)
class BuildOptions:
    """Render the showroom's subjects from the public packages that they come in; goes on where it stopped.

    Nothing is downloaded: what is missing is named with the command that fetches it. The result is a pure
    function of the packages, the seed and the number of views. OUT/CREDITS.txt names every author.
    """

    packages: str
    """Folder that holds the downloaded packages."""
    out: str
    """Folder for what they unpack to, and for the cut-outs."""
    views: int = 3
    """Views of each 3D model; emoji have one."""
    seed: int = 0
    """Other cameras and lights."""


def run(arguments: list[str]) -> None:
    """Build. Raises JeDiError."""
    given = tyro.cli(BuildOptions, args=arguments, prog="jedi showroom build")
    check_options(given, {"views": (1, 64), "seed": (0, 2**31)})
    from jedi_showroom.building import Build

    folder = make_folder(given.out)
    build = Build(Path(given.packages), folder, given.seed, given.views)

    def progress(subjects: Sequence[Subject]) -> Sequence[Subject]:
        shown: Sequence[Subject] = tqdm(subjects, unit="subject", file=sys.stderr)
        return shown

    made = build.run(progress)
    print(f"{made} of {len(build.subjects)} subjects have cut-outs in {folder / 'cutouts'}")
    print(f"Authors to credit: {folder / 'CREDITS.txt'}")
    if made < len(build.subjects):
        print(f"What could not be rendered: {folder / 'quarantine.jsonl'}")
