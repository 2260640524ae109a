"""`jedi data show`: sets with their captions on a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from jedi_diffusion.cli.data_options import Kind, open_place
from jedi_diffusion.options import check_options
from jedi_diffusion.pictures import contact_sheet, save_png


@dataclass(frozen=True)
class ShowOptions:
    """Draw some sets as training could see them: a row each, pictures with their captions."""

    place: tyro.conf.Positional[str]
    """Shards (a folder, x.tar, x/{0000..0041}.tar, s3://, https://), stacked sets, folders of pictures."""
    out: str = "sheet.png"
    """The contact sheet, a PNG; replaced if it is there."""
    kind: Kind = "auto"
    """What is there; "auto" tells sets and folders of subjects apart."""
    sets: int = 12
    """Rows."""
    size: int = 4
    """Pictures in a row at most."""
    cell: int = 192
    """Side of a picture on the sheet in pixels."""
    seed: int = 0
    """Which sets, and which of their pictures."""


def run(arguments: list[str]) -> None:
    """Raise JeDiError."""
    given = tyro.cli(ShowOptions, args=arguments, prog="jedi data show")
    check_options(given, {"sets": (1, 200), "size": (1, 32), "cell": (32, 1024), "seed": (0, 2**62)})
    import numpy as np

    from jedi_diffusion.data.mixture import square_set
    from jedi_diffusion.randomness import Permutation

    found = open_place(given.place, given.kind)
    order = Permutation(len(found), given.seed)
    items = [order(number) for number in range(min(given.sets, len(found)))]
    rows = []
    for item in sorted(items):
        generator = np.random.default_rng([given.seed, item])
        read = found.read(item, min(given.size, found.size(item)), generator)
        made = square_set(read, given.cell)
        rows.append(list(zip(made.pictures, made.captions, strict=True)))
    title = f"{given.place}: {len(rows)} of {len(found)} sets"
    save_png(given.out, contact_sheet(rows, cell=given.cell, title=title))
    print(f"Contact sheet: {given.out}")
