"""`jedi library add`: a folder of photos into a library, each once."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro
from tqdm import tqdm

from jedi_diffusion import models
from jedi_diffusion.cli.parsing import parsed
from jedi_diffusion.library import Added, EncoderName, open_library, photos_below
from jedi_diffusion.options import Settings


class AddOptions(Settings):
    """Embed the photos of a folder, and of the folders in it, so that prompts find them.

    The folder that a photo lies in names its subject ("rex"), a .txt beside it is its caption. Photos that
    are there already stay as they are; files that cannot be read are noted, with the reason. A run that is
    stopped, however, loses nothing: the same command goes on.
    """

    photos: tyro.conf.Positional[str]
    """The folder with the photos."""
    library: str
    """The folder of the library, made if it is not there."""
    encoder: EncoderName | None = None
    """What photos are compared by: lite2 or lite0 (the extra imagenet), or the toybox's scorer; the library's
    own, and for a new one lite2 where it is installed."""


def run(arguments: list[str]) -> None:
    """Raise JeDiError."""
    given = parsed(AddOptions, arguments, "jedi library add")
    models.quiet_libraries()
    total = sum(1 for _ in photos_below(Path(given.photos)))
    library, encoder = open_library(given.library, given.encoder)
    done = Added()
    with tqdm(total=total, unit="photo", file=sys.stderr, dynamic_ncols=True) as bar:
        for done in library.add(given.photos, encoder):
            bar.update(done.new + done.kept + done.refused - bar.n)
    print(
        f"{done.new} photos are new, {done.kept} files were known. {library.folder} has {len(library)} "
        f"photos of {len(library.subjects())} subjects, compared by {library.encoder}."
    )
    if done.refused:
        print(f"{done.refused} files are refused; jedi library show {given.library} says why.")
