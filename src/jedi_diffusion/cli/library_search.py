"""`jedi library search`: which photos a prompt finds, or another photo."""

from __future__ import annotations

from typing import Annotated

import tyro

from jedi_diffusion import models
from jedi_diffusion.cli.parsing import parsed
from jedi_diffusion.errors import UsageError
from jedi_diffusion.library import Library, encoder_of
from jedi_diffusion.options import Between, Settings
from jedi_diffusion.pictures import open_picture


class SearchOptions(Settings):
    """Show which photos of a library fit a prompt, or are most like a photo: path, subject, likeness."""

    library: tyro.conf.Positional[str]
    """The folder of the library."""
    prompt: str | None = None
    """Words that name a subject of the library: "rex at the lake". `jedi generate` takes these photos."""
    like: str | None = None
    """A photo: those that show what is most like it."""
    subject: str | None = None
    """The name of the subject, in place of the one in the prompt."""
    count: Annotated[int, Between(1, 1000)] = 4
    """How many are shown at most."""


def run(arguments: list[str]) -> None:
    """Raise JeDiError."""
    given = parsed(SearchOptions, arguments, "jedi library search")
    models.quiet_libraries()
    if (given.prompt is None) == (given.like is None):
        raise UsageError("Say what to look for: --prompt WORDS or --like PHOTO, one of them.")
    library = Library(given.library)
    if given.prompt is not None:
        found = library.choose(given.prompt, given.subject, given.count)
    else:
        encoder = encoder_of(library.encoder)
        library.check_encoder(None, encoder)
        (vector,) = encoder.identities([open_picture(given.like or "")])
        found = library.nearest(vector, given.count)
    for each in found:
        print(f"{each.path}  {each.subject}  {each.likeness:.3f}")
