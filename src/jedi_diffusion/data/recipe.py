"""What a recipe says of the data: which sources, how often each, and what is drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from jedi_diffusion.data.folders import FoldersSection
from jedi_diffusion.data.mixture import Mixture, MixtureSource
from jedi_diffusion.data.multiview import MultiviewSection
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.settings import SourceSettings
from jedi_diffusion.data.stored import SetsSection, SingleSection
from jedi_diffusion.data.video import VideoSection

Source = Annotated[
    SetsSection | FoldersSection | SingleSection | MultiviewSection | VideoSection,
    Field(discriminator="kind"),
]


def open_mixture(
    sources: Sequence[SourceSettings], resolution: int, seed: int = 0, quarantine: Quarantine | None = None
) -> Mixture:
    """Return the sources of a recipe, mixed.

    Raises DataError if one cannot be opened, UsageError for shares.
    """
    mixed = [
        MixtureSource(each.open(resolution, quarantine), each.probability, each.sizes) for each in sources
    ]
    return Mixture(mixed, resolution, seed, quarantine)
