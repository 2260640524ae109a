"""What the commands that look at any kind of data share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jedi_diffusion.errors import UsageError

if TYPE_CHECKING:
    from jedi_diffusion.data.collection import SetCollection
    from jedi_diffusion.data.quarantine import Quarantine

Kind = Literal["auto", "sets", "folders", "single", "multiview", "video"]


def open_place(place: str, kind: Kind, quarantine: Quarantine | None = None) -> SetCollection:
    """The collection at a place; "auto" tells sets and folders apart. Raises DataError."""
    from pydantic import TypeAdapter

    from jedi_diffusion.data.folders import holds_subjects
    from jedi_diffusion.data.recipe import Source, open_source

    if kind == "auto":
        kind = "folders" if holds_subjects(place) else "sets"
    return open_source(TypeAdapter(Source).validate_python({"kind": kind, "place": place}), 1024, quarantine)


def check_range(flag: str, value: int, low: int, high: int) -> None:
    """Raises UsageError for a number out of range."""
    if not low <= value <= high:
        raise UsageError(f"{flag} is {value}, but must lie between {low} and {high}.")
