"""`jedi library show`: what is in a library, and what is not."""

from __future__ import annotations

import tyro

from jedi_diffusion.cli.parsing import parsed
from jedi_diffusion.library import Library
from jedi_diffusion.options import Settings


class ShowOptions(Settings):
    """Show the subjects of a library with the number of their photos, and why files were refused."""

    library: tyro.conf.Positional[str]
    """The folder of the library."""


def run(arguments: list[str]) -> None:
    """Raise JeDiError."""
    library = Library(parsed(ShowOptions, arguments, "jedi library show").library)
    print(f"{len(library)} photos, compared by {library.encoder}")
    for subject, count in library.subjects().items():
        print(f"{count:>6}  {subject}")
    for reason in library.refused().values():
        print(f"refused: {reason}")
