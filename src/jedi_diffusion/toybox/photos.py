"""Real photos as references: what a model trained on the toybox alone makes of things it has never seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import folders_in, plain_name
from jedi_diffusion.model.reconstruction import describe_psnr, reconstruct
from jedi_diffusion.personalizer import Personalizer
from jedi_diffusion.pictures import contact_sheet, fit_square, open_picture, pictures_in

NAME = "a toy"  # what every photo is said to show
PROMPTS = ("a toy on the beach", "a toy in the snow", "a toy on a wooden floor")


class Photo(NamedTuple):
    """A photo and what it is called on the sheet."""

    name: str
    picture: Image.Image


def find_photos(folder: str | Path) -> list[Path]:
    """The pictures in a folder; where it has none, the first picture of each of its subfolders. In order of
    names.

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


def read_photos(folder: str | Path, size: int) -> list[Photo]:
    """The folder's photos (`find_photos`), each cut to its centre and brought to size x size."""
    paths = find_photos(folder)
    alone = len({path.parent for path in paths}) > 1  # one a subfolder, whose name says what it is
    return [
        Photo(plain_name(path.parent.name if alone else path.stem), fit_square(open_picture(path), size))
        for path in paths
    ]


class PhotoSheet(NamedTuple):
    """The sheet, and the autoencoder's PSNR on every photo in dB, (P,)."""

    sheet: Image.Image
    quality: Tensor


def photo_sheet(
    photos: Sequence[Photo],
    personalizer: Personalizer,
    autoencoder: nn.Module,
    prompts: Sequence[str] = PROMPTS,
    seed: int = 0,
) -> PhotoSheet:
    """A row for every photo: the photo, the autoencoder's reconstruction, a new picture for each prompt."""
    decoded, quality = reconstruct(autoencoder, [photo.picture for photo in photos])
    rows: list[list[tuple[Image.Image, str] | None]] = []
    for photo, again, level in zip(tqdm(photos, unit="photo"), decoded, quality.tolist(), strict=True):
        made = personalizer([photo.picture], [NAME], prompts, [seed] * len(prompts))
        shown = [(photo.picture, photo.name), (again, f"reconstruction, {level:.1f} dB")]
        rows.append([*shown, *zip(made, prompts, strict=True)])
    title = f"Photos, their reconstructions (PSNR {describe_psnr(quality)}), and new pictures"
    return PhotoSheet(contact_sheet(rows, cell=photos[0].picture.width, title=title), quality)
