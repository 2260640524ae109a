"""`jedi demo --photos`: one's own photos as references, each shown in a few scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import folders_in, plain_name, slugs
from jedi_diffusion.pictures import fit_square, open_picture, pictures_in

if TYPE_CHECKING:
    from PIL import Image

NAME = "a toy"  # what every photo is said to show: the bundled model's word for what it has no word for
SCENES = ("on the beach", "in the snow", "on a wooden floor", "in a forest", "in the city", "on the moon")


class PhotoRow(NamedTuple):
    """A photo, what it is called on the sheet, and what is asked for."""

    name: str
    path: Path
    prompts: tuple[str, ...]

    @property
    def labels(self) -> list[str]:
        """What stands below each picture on the sheet."""
        return [self.name, *self.prompts]

    def files(self, number: int) -> list[str]:
        """Return one name a picture: "1-reference-1.png", "1-a-toy-on-the-beach.png"."""
        return [
            f"{number}-reference-1.png",
            *(f"{number}-{name}.png" for name in slugs(self.prompts)),
        ]


def find_photos(folder: str | Path) -> list[Path]:
    """Return the pictures in a folder by name; where it has none, the first of each of its subfolders.

    Raises UsageError if there are none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.")
    found = pictures_in(folder)
    if not found:
        found = [pictures[0] for each in folders_in(folder) if (pictures := pictures_in(each))]
    if not found:
        raise UsageError(f"{folder} holds no pictures, nor do its subfolders.")
    return found


def photo_rows(folder: str | Path, count: int, prompts: Sequence[str]) -> list[PhotoRow]:
    """Return a row for each photo of a folder (`find_photos`), with `prompts`, else with the first scenes."""
    paths = find_photos(folder)
    asked = tuple(prompts) or tuple(f"{NAME} {scene}" for scene in SCENES[:count])
    alone = len({path.parent for path in paths}) > 1  # one a subfolder, whose name says what it is
    return [PhotoRow(plain_name(path.parent.name if alone else path.stem), path, asked) for path in paths]


def make(pipe: Any, row: PhotoRow, size: int, seed: int, settings: dict[str, Any]) -> list[Image.Image]:
    """Return the photo, cut to its centre square, and the model's pictures, all from one seed."""
    from jedi_diffusion.methods.joint import Joint

    photo = fit_square(open_picture(row.path), size)
    return [photo, *Joint(pipe, settings)([photo], [NAME], row.prompts, [seed] * len(row.prompts))]
