"""What the commands that look at any kind of data share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jedi_diffusion.data.collection import SetCollection
    from jedi_diffusion.data.folders import SubjectFolders
    from jedi_diffusion.data.quarantine import Quarantine
    from jedi_diffusion.data.settings import SourceSettings

Kind = Literal["auto", "sets", "folders", "single", "multiview", "video"]


def open_place(place: str, kind: Kind, quarantine: Quarantine | None = None) -> SetCollection:
    """Return the collection at a place; "auto" tells sets and folders apart. Raises DataError."""
    from pydantic import TypeAdapter

    from jedi_diffusion.data.folders import SubjectFolders
    from jedi_diffusion.data.recipe import Source

    kind = kind_of(place, kind)
    if kind == "folders":
        folders = SubjectFolders(place, quarantine=quarantine)
        tell_layout(folders)
        return folders
    source: SourceSettings = TypeAdapter(Source).validate_python({"kind": kind, "place": place})
    return source.open(1024, quarantine)


def kind_of(place: str, kind: Kind) -> Kind:
    """Return the kind of a source; "auto" tells sets and folders of subjects apart."""
    from jedi_diffusion.data.folders import holds_subjects

    if kind != "auto":
        return kind
    return "folders" if holds_subjects(place) else "sets"


def tell_layout(folders: SubjectFolders) -> None:
    """Say on stderr how a folder was taken, where that is not plain: as trainers of adapters lay them out."""
    from jedi_diffusion.data.folders import REPEATS, words_of

    names = [each.name for each in folders.subjects]
    if folders.flat:
        print(
            f"jedi: {folders.source} has no subfolders with pictures: its {folders.size(0)} pictures are "
            f'taken as one subject, "{words_of(names[0])}". Sets that are stacked are read with kind "sets".',
            file=sys.stderr,
        )
    repeated = next(filter(REPEATS.match, names), None)
    if repeated is not None:
        print(
            f"jedi: the number before the name of {repeated} is taken for repeats, as kohya's trainers have "
            f'it: the subject is "{words_of(repeated)}".',
            file=sys.stderr,
        )
