"""What a recipe says of the data: which sources, how often each, and what is drawn from them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from jedi_diffusion.data.collection import SetCollection
from jedi_diffusion.data.folders import SubjectFolders
from jedi_diffusion.data.mixture import PAPER_SIZES, Mixture, MixtureSource
from jedi_diffusion.data.multiview import MultiviewAssets
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.stored import SinglePictures, StoredSets
from jedi_diffusion.data.video import VideoFrames
from jedi_diffusion.options import Section

logger = logging.getLogger(__name__)

NAME = r"^[a-z0-9][a-z0-9_-]*$"
"""What latents beside shards can be called: a part of a file's name."""


class SourceSection(Section):
    """What all sources share. `probability` counts beside that of the others; sizes are equally likely.

    `encoded` names latents that `jedi data encode` put beside the shards; training then decodes no picture
    of this source.
    """

    drawn: ClassVar[str | None] = "they are in no shards"
    """Why its latents cannot be there before training; None where they can."""

    place: str = Field(description="a folder, or tars: x.tar, x/{00000..00041}.tar, s3://, https://")
    probability: PositiveFloat = 1.0
    sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = PAPER_SIZES
    encoded: Annotated[str, Field(pattern=NAME)] | None = None

    @field_validator("encoded")
    @classmethod
    def _can_be_encoded(cls, value: str | None) -> str | None:
        if value is not None and cls.drawn is not None:
            raise ValueError(
                f"these sets cannot be encoded before training, since {cls.drawn}; `jedi data pack` makes "
                "shards of them, which can be encoded"
            )
        return value


class SetsSection(SourceSection):
    """Sets in the paper's format: shards, or a folder."""

    drawn: ClassVar[str | None] = None
    kind: Literal["sets"] = "sets"


class FoldersSection(SourceSection):
    """A local folder with a subfolder of pictures for each subject."""

    kind: Literal["folders"] = "folders"


class SingleSection(SourceSection):
    """Shards of single pictures with captions, as img2dataset writes them."""

    drawn: ClassVar[str | None] = None
    kind: Literal["single"] = "single"


class MultiviewSection(SourceSection):
    """A folder of rendered views for each asset; `backgrounds` is a folder of photos to put behind them."""

    drawn: ClassVar[str | None] = "their backgrounds are drawn anew each time"
    kind: Literal["multiview"] = "multiview"
    backgrounds: str | None = None


class VideoSection(SourceSection):
    """Videos with captions; frames of a set are at least `gap` seconds apart."""

    drawn: ClassVar[str | None] = "their frames are drawn anew each time"
    kind: Literal["video"] = "video"
    gap: PositiveFloat = 1.0


Source = Annotated[
    SetsSection | FoldersSection | SingleSection | MultiviewSection | VideoSection,
    Field(discriminator="kind"),
]


def open_source(source: Source, resolution: int, quarantine: Quarantine | None = None) -> SetCollection:
    """The collection that a section describes; pictures may come as small as `resolution` a side.

    Raises DataError if it cannot be opened, or is not encoded as it says.
    """
    match source:
        case SetsSection():
            return _encoded(StoredSets(source.place, quarantine), source.encoded)
        case FoldersSection():
            return _told(SubjectFolders(source.place, resolution, quarantine))
        case SingleSection():
            return _encoded(SinglePictures(source.place, quarantine, resolution), source.encoded)
        case MultiviewSection():
            return MultiviewAssets(source.place, source.backgrounds)
        case VideoSection():
            return VideoFrames(source.place, source.gap, quarantine)


def _told(folders: SubjectFolders) -> SubjectFolders:
    """The same, after a word on files that people would expect to be read."""
    left_out = folders.left_out()
    if left_out:
        logger.warning(
            "%d files of %s are left out; the first: %s `jedi data check` names all.",
            len(left_out),
            folders.source,
            left_out[0].reason,
        )
    return folders


def _encoded(collection: StoredSets | SinglePictures, name: str | None) -> SetCollection:
    if name is None:
        return collection
    from jedi_diffusion.data.encoded import EncodedSets  # loads torch, which other sources need not

    return EncodedSets(collection, name)


def open_mixture(
    sources: Sequence[Source], resolution: int, seed: int = 0, quarantine: Quarantine | None = None
) -> Mixture:
    """The sources of a recipe, mixed. Raises DataError if one cannot be opened, UsageError for shares."""
    opened = [open_source(each, resolution, quarantine) for each in sources]
    mixed = [
        MixtureSource(collection, each.probability, each.sizes)
        for collection, each in zip(opened, sources, strict=True)
    ]
    return Mixture(mixed, resolution, seed, quarantine)
