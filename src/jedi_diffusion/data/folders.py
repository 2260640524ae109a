"""Folders of pictures, one a subject: how people keep them, and how `jedi toybox` writes its sets."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jedi_diffusion.data.collection import chosen
from jedi_diffusion.data.record import MASKS, SubjectSet
from jedi_diffusion.errors import DataError
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.pictures import open_picture, pictures_in, save_png

RECORD = "set.json"


def holds_subjects(place: str) -> bool:
    """Whether a place is a local folder with subfolders of pictures, and holds no sets itself."""
    folder = Path(place)
    if not folder.is_dir() or any(folder.glob("*.tar")):
        return False
    if any(picture.with_suffix(".txt").is_file() for picture in pictures_in(folder)):
        return False
    return any(each.is_dir() and _pictures_of(each) for each in folder.iterdir())


class SubjectFolders:
    """The subfolders of a local folder, each a set of its pictures.

    A caption is the text in `x.txt` beside `x.jpg`; else that in the subfolder's set.json (`captions`, in the
    order of the pictures' names); else the subfolder's name in words. `x.mask.png`, 255 on the subject, is
    the mask of `x.jpg`; masks count where every picture has one. Large JPEGs are decoded at a reduced scale,
    no smaller than `decode_size`.
    """

    def __init__(self, folder: str | Path, decode_size: int = 1024) -> None:
        self.source = str(folder)
        self._decode_size = decode_size
        if not Path(folder).is_dir():
            raise DataError(f"There is no folder {folder}.")
        subfolders = sorted(each for each in Path(folder).iterdir() if each.is_dir())
        found = {each: _pictures_of(each) for each in subfolders}
        self._pictures = {each: pictures for each, pictures in found.items() if pictures}
        self._folders = list(self._pictures)
        if not self._folders:
            raise DataError(f"{folder} holds no subfolders with pictures, one a subject.")

    def __len__(self) -> int:
        return len(self._folders)

    def name(self, item: int) -> str:
        return str(self._folders[item])

    def size(self, item: int) -> int:
        return len(self._pictures[self._folders[item]])

    def read(self, item: int, size: int, generator: np.random.Generator) -> SubjectSet:
        return self.pictures(item, chosen(self.size(item), size, generator))

    def pictures(self, item: int, numbers: Sequence[int]) -> SubjectSet:
        """The pictures with these numbers, in order of names, of set number `item`.

        Raises PictureError or DataError.
        """
        folder = self._folders[item]
        files = [self._pictures[folder][number] for number in numbers]
        captions = _captions_of(folder, self._pictures[folder])
        masks = [_mask_of(file) for file in self._pictures[folder]]
        return SubjectSet(
            pictures=tuple(open_picture(file, decode_size=self._decode_size) for file in files),
            captions=tuple(captions[number] for number in numbers),
            subject=words_of(folder.name),
            source=self.source,
            masks=tuple(_opened(masks[number]) for number in numbers) if all(masks) else None,
            info={"folder": folder.name, "files": [file.name for file in files]},
        )


def words_of(name: str) -> str:
    """A folder's name as a caption: "bear_plushie" is "bear plushie", "dog6" is "dog"."""
    words = " ".join(re.sub(r"[\W_]+", " ", name).split())
    return re.sub(r"\s*\d+$", "", words) or words


def write_subject(folder: Path, given: SubjectSet) -> None:
    """A folder that `SubjectFolders` reads: k.png, k.txt, k.mask.png and set.json. Raises OutputError."""
    make_folder(folder)
    digits = len(str(len(given) - 1))
    for number, (picture, caption) in enumerate(zip(given.pictures, given.captions, strict=True)):
        save_png(folder / f"{number:0{digits}d}.png", picture)
        write_file(folder / f"{number:0{digits}d}.txt", caption.encode())
    for number, mask in enumerate(given.masks or ()):
        save_png(folder / f"{number:0{digits}d}.{MASKS}", mask)
    record = {"name": given.subject, "source": given.source, "captions": given.captions, **given.info}
    write_file(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False).encode())


def _pictures_of(folder: Path) -> list[Path]:
    return [file for file in pictures_in(folder) if not file.name.endswith(f".{MASKS}")]


def _mask_of(picture: Path) -> Path | None:
    mask = picture.with_suffix(f".{MASKS}")
    return mask if mask.is_file() else None


def _opened(mask: Path | None) -> Image.Image:
    assert mask is not None
    return open_picture(mask).convert("L")


def _captions_of(folder: Path, pictures: Sequence[Path]) -> list[str]:
    try:
        texts = [file.with_suffix(".txt") for file in pictures]
        common = _recorded(folder, len(pictures))
        return [
            text.read_text(encoding="utf-8").strip() if text.is_file() else other
            for text, other in zip(texts, common, strict=True)
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The captions of {folder} cannot be read: {error}.") from error


def _recorded(folder: Path, count: int) -> list[str]:
    """Captions where a picture has no text of its own."""
    record = folder / RECORD
    if not record.is_file():
        return [words_of(folder.name)] * count
    try:
        captions = json.loads(record.read_text(encoding="utf-8"))["captions"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{record} does not list captions.") from error
    if not isinstance(captions, list) or len(captions) != count:
        raise DataError(f"{record} does not list a caption for each of the {count} pictures.")
    return [str(caption) for caption in captions]
