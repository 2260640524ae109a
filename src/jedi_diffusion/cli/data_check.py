"""`jedi data check`: reads everything once, and says what is broken."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass

import tyro
from tqdm import tqdm

from jedi_diffusion.cli.data_options import Kind, open_place
from jedi_diffusion.errors import DataError, PictureError


@dataclass(frozen=True)
class CheckOptions:
    """Read every set: indexes fit their tars, checksums agree, pictures decode, captions match.

    Each fault is a line on stderr; with any, the exit status is 1.
    """

    place: tyro.conf.Positional[str]
    """Shards (a folder, x.tar, x/{0000..0041}.tar, s3://, https://), stacked sets, folders of pictures."""
    kind: Kind = "auto"
    """What is there; "auto" tells sets and folders of subjects apart."""


def run(arguments: list[str]) -> None:
    """Raise JeDiError."""
    given = tyro.cli(CheckOptions, args=arguments, prog="jedi data check")
    import numpy as np

    from jedi_diffusion.data.folders import SubjectFolders
    from jedi_diffusion.data.quarantine import Quarantine

    faults = Quarantine(limit=sys.maxsize)
    found = open_place(given.place, given.kind, faults)
    sizes: Counter[int] = Counter()
    for reason in faults.reasons().values():  # whole tars
        print(f"jedi: {reason}", file=sys.stderr)
    for each in found.left_out() if isinstance(found, SubjectFolders) else ():
        print(f"jedi: left out: {each.reason}", file=sys.stderr)
    for item in tqdm(range(len(found)), unit="set", file=sys.stderr):
        before = len(faults)
        try:
            read = found.read(item, found.size(item), np.random.default_rng(0))
        except (DataError, PictureError) as error:
            if len(faults) == before:  # else its files are named one by one
                faults.add(found.source, found.name(item), str(error))
            for reason in list(faults.reasons().values())[before:]:
                tqdm.write(f"jedi: {reason}", file=sys.stderr)
            continue
        sizes[len(read)] += 1
    listed = ", ".join(f"{count} of {size}" for size, count in sorted(sizes.items()))
    pictures = sum(size * count for size, count in sizes.items())
    print(f"{sizes.total()} good sets with {pictures} pictures" + (f": {listed}" if sizes else ""))
    if len(faults):
        raise DataError(f"{len(faults)} faults in {given.place}.")
