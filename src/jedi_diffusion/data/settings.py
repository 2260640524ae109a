"""What the settings of every data source share: a share of the training, and how its collection is opened.

A source is one file, which holds its settings and the collection that they open, and one line in the union
of `recipe`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from jedi_diffusion.data.collection import PAPER_SIZES, SetCollection
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.options import Section

NAME = r"^[a-z0-9][a-z0-9_-]*$"
"""What latents beside shards can be called: a part of a file's name."""


class SourceSettings(Section):
    """A source of sets. `probability` counts beside that of the others; sizes are equally likely.

    A subclass adds `kind: Literal[...]`, the name that recipes choose it by.
    """

    probability: PositiveFloat = 1.0
    sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = PAPER_SIZES

    @abstractmethod
    def open(self, resolution: int, quarantine: Quarantine | None = None) -> SetCollection:
        """Return the collection; its pictures may come as small as `resolution` a side.

        Raise DataError if it cannot be opened, or is not encoded as it says.
        """


class StoredSource(SourceSettings):
    """A source that lies somewhere.

    `encoded` names latents that `jedi data encode` put beside the shards; training then decodes no picture
    of this source.
    """

    drawn: ClassVar[str | None] = "they are in no shards"
    """Why its latents cannot be there before training; None where they can."""

    place: str = Field(description="a folder, or tars: x.tar, x/{00000..00041}.tar, s3://, https://")
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
