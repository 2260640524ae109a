"""Folders of pictures, one a subject: how people keep them, and how `jedi toybox` writes its sets."""

from __future__ import annotations

import json
import logging
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.record import KINDS, MASKS, SEPARATOR
from jedi_diffusion.data.settings import StoredSource
from jedi_diffusion.errors import DataError, PictureError
from jedi_diffusion.files import (
    files_in,
    folders_in,
    is_hidden,
    is_mask,
    is_utf8,
    json_bytes,
    make_folder,
    natural_order,
    plain_name,
    read_text,
    stem_of,
    write_file,
)
from jedi_diffusion.pictures import UNREAD_ENDINGS, is_picture, open_mask, open_picture, pictures_in, save_png
from jedi_diffusion.sets import ImageSet

logger = logging.getLogger(__name__)

RECORD = "set.json"
REPEATS = re.compile(r"^\d+_(?=.*[^\W\d])")
"""How often a picture is seen in an epoch, in front of a folder's name where kohya's trainers read it."""
CAPTIONS = (".txt", ".caption")
"""Endings of caption files, in order of preference."""


class UnusableFileError(DataError):
    """A file of a subject cannot be used; `file` says which."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(reason)
        self.file = file


class LeftOut(NamedTuple):
    """A picture, caption or mask that is not read where it lies, and why."""

    file: Path
    reason: str


class Captioned(NamedTuple):
    """A picture (RGB) with its caption and, if all pictures of its subject have one, its mask (L)."""

    picture: Image.Image
    caption: str
    mask: Image.Image | None


class SubjectFolder:
    """The pictures of one subject, in natural order of their names. The folder is listed once.

    Raises DataError if it cannot be listed.
    """

    def __init__(self, path: Path, decode_size: int = 1024) -> None:
        self.path = path
        self.name = path.name or path.resolve().name
        self._decode_size = decode_size
        files = files_in(path)
        self.pictures = [file for file in files if is_picture(file)]
        stems = {stem_of(file.name) for file in self.pictures}
        texts: dict[str, Path] = {}
        masks: dict[str, Path] = {}
        self.unread: list[LeftOut] = []
        """Pictures of formats that cannot be decoded here."""
        for file in files:
            if is_mask(file.name):
                masks[stem_of(file.name)] = file
            elif file.suffix.lower() in CAPTIONS:
                known = texts.setdefault(stem_of(file.name), file)
                if _rank(file) < _rank(known):
                    texts[stem_of(file.name)] = file
            elif file.suffix.lower() in UNREAD_ENDINGS:
                self.unread.append(LeftOut(file, f"{file} is of a format that is not read."))
        self._single = [
            LeftOut(file, f"{file} has no picture of its name beside it.")
            for named in (texts, masks)
            for stem, file in named.items()
            if stem not in stems
        ]
        self._texts = [texts.get(stem_of(file.name)) for file in self.pictures]
        beside = [masks[stem_of(file.name)] for file in self.pictures if stem_of(file.name) in masks]
        self._masks = beside if len(beside) == len(self.pictures) else None

    def __len__(self) -> int:
        return len(self.pictures)

    def open(self, number: int) -> Captioned:
        """Read one picture, its caption and its mask. Raises UnusableFileError."""
        caption, file = self.caption(number), self.pictures[number]
        try:
            picture = open_picture(file, decode_size=self._decode_size)
            file = file if self._masks is None else self._masks[number]
            return Captioned(picture, caption, None if self._masks is None else open_mask(file))
        except PictureError as error:
            raise UnusableFileError(file, str(error)) from error

    def caption(self, number: int) -> str:
        """Return a picture's own text, else its place in set.json, else the folder's name in words.

        Raises UnusableFileError.
        """
        file = self._texts[number]
        if file is None:
            if isinstance(self._common, UnusableFileError):
                raise self._common
            return self._common[number]
        try:
            caption = read_text(file).strip()
        except DataError as error:
            raise UnusableFileError(file, str(error)) from error
        return _without_separator(caption, file)

    @cached_property
    def _common(self) -> list[str] | UnusableFileError:
        """A caption for each picture without a text of its own, or why there is none."""
        record = self.path / RECORD
        try:
            return self._recorded(record) if record.is_file() else [self._named()] * len(self)
        except UnusableFileError as error:
            return error

    def _named(self) -> str:
        if not is_utf8(self.name):
            raise UnusableFileError(
                self.path,
                f"The name of {self.path} is not UTF-8, so it cannot be a caption: rename the folder, or "
                "write captions.",
            )
        return words_of(self.name)

    def _recorded(self, record: Path) -> list[str]:
        try:
            captions = json.loads(read_text(record))["captions"]
        except DataError as error:
            raise UnusableFileError(record, str(error)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UnusableFileError(record, f"{record} does not list captions.") from error
        if not isinstance(captions, list) or len(captions) != len(self):
            raise UnusableFileError(
                record, f"{record} does not list a caption for each of the {len(self)} pictures."
            )
        return [_without_separator(str(caption), record) for caption in captions]

    def files(self) -> Iterator[Path]:
        """Yield every file that `open` reads."""
        for number, file in enumerate(self.pictures):
            yield file
            yield from (each for each in (self._texts[number],) if each is not None)
        yield from self._masks or ()
        if None in self._texts and (self.path / RECORD).is_file():
            yield self.path / RECORD

    def left_out(self) -> Iterator[LeftOut]:
        """Yield what people would expect to be read, but is not."""
        yield from (*self.unread, *self._single)
        for folder in folders_in(self.path):
            for file in _pictures_below(folder):
                yield LeftOut(file, f"{file} is one folder too deep: a subject's pictures are in its folder.")


class SubjectFolders:
    """The subfolders of a local folder, each a set of its pictures; without such, the folder itself is one.

    A caption is the text in `x.txt` (or `x.caption`) beside `x.jpg`; else that in the subfolder's set.json
    (`captions`, in natural order of the pictures' names); else the subfolder's name in words. `x.mask.png`,
    255 on the subject, is the mask of `x.jpg`; masks count where every picture has one. Names match whether
    their letters are composed (NFC) or not (NFD). Large JPEGs are decoded at a reduced scale, no smaller than
    `decode_size`. With a `quarantine`, a file that cannot be used is recorded there, and `read` takes another
    picture of the subject.
    """

    def __init__(
        self, folder: str | Path, decode_size: int = 1024, quarantine: Quarantine | None = None
    ) -> None:
        self.source = str(folder)
        self._quarantine = quarantine
        root = Path(folder)
        if not root.is_dir():
            raise DataError(f"There is no folder {folder}.")
        self._top = SubjectFolder(root, decode_size)
        self._below = [SubjectFolder(each, decode_size) for each in folders_in(root)]
        self.flat = len(self._top) > 0 and not any(map(len, self._below))
        """Whether the folder holds one subject's pictures itself, as trainers of adapters have it."""
        self.subjects = [self._top] if self.flat else [each for each in self._below if len(each)]
        if not self.subjects:
            raise DataError(f"{folder} holds no subfolders with pictures, one a subject, and no pictures.")

    def __len__(self) -> int:
        return len(self.subjects)

    def name(self, item: int) -> str:
        return str(self.subjects[item].path)

    def size(self, item: int) -> int:
        return len(self.subjects[item])

    def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
        """Return `size` pictures of a subject, the first usable ones in an order that the generator draws.

        Raises DataError if there are fewer, or, without a quarantine, for the first that cannot be used.
        """
        subject = self.subjects[item]
        taken: dict[int, Captioned] = {}
        fault: UnusableFileError | None = None
        for number in generator.permutation(len(subject)).tolist():
            if len(taken) == size:
                break
            try:
                taken[number] = subject.open(number)
            except UnusableFileError as error:
                if self._quarantine is None:
                    raise
                self._quarantine.add(self.source, str(error.file), str(error))
                fault = error
        if len(taken) < size:
            raise DataError(
                f"Of {subject.path} {len(taken)} of {len(subject)} pictures can be used, fewer than the "
                f"{size} that are needed; the last fault: {fault}"
            )
        return self.joined(item, taken)

    def pictures(self, item: int, numbers: Sequence[int]) -> ImageSet:
        """Return the pictures with these numbers, in natural order of names. Raises UnusableFileError."""
        return self.joined(item, {number: self.subjects[item].open(number) for number in numbers})

    def joined(self, item: int, opened: dict[int, Captioned]) -> ImageSet:
        """Return pictures of one subject, by number, as a set."""
        subject = self.subjects[item]
        masks = tuple(each.mask for each in opened.values() if each.mask is not None)
        return ImageSet(
            pictures=tuple(each.picture for each in opened.values()),
            captions=tuple(each.caption for each in opened.values()),
            subject=words_of(subject.name),
            source=self.source,
            masks=masks or None,
            info={
                "folder": plain_name(subject.name),
                "files": [plain_name(subject.pictures[number].name) for number in opened],
            },
        )

    def parts(self) -> Iterator[tuple[str, None]]:
        """Yield every file that is read (see `SetCollection.parts`)."""
        for subject in self.subjects:
            yield from ((str(file), None) for file in subject.files())

    def left_out(self) -> list[LeftOut]:
        """Return the pictures, captions and masks that are not read where they lie."""
        if self.flat:
            return list(self._top.left_out())
        beside = [
            LeftOut(file, f"{file} is in no subject's folder: the other pictures are in subfolders.")
            for file in self._top.pictures
        ]
        return [*beside, *self._top.unread, *(each for folder in self._below for each in folder.left_out())]


def holds_subjects(place: str) -> bool:
    """Return whether a place is a local folder with pictures of subjects, in subfolders or by themselves.

    A folder of tars or of stacked sets is not: stacked sets have captions with `<|split|>`, or our records.
    """
    folder = Path(place)
    if "://" in place or not folder.is_dir():
        return False
    files = files_in(folder)
    if any(file.suffix == ".tar" for file in files):
        return False
    pictures = [file for file in files if is_picture(file)]
    if any(file.suffix[1:].lower() in (*KINDS, "jpeg") and _is_stacked(file) for file in pictures):
        return False
    return bool(pictures) or any(pictures_in(each) for each in folders_in(folder))


def words_of(name: str) -> str:
    """Return a folder's name as a caption: "bear_plushie" is "bear plushie", "dog6" is "dog".

    The number of repeats that kohya's trainers put in front is dropped: "10_red fox" is "red fox".
    """
    name = REPEATS.sub("", unicodedata.normalize("NFC", name))
    words = " ".join(re.sub(r"[\W_]+", " ", name).split())
    return re.sub(r"\s*\d+$", "", words) or words


def write_subject(folder: Path, given: ImageSet) -> None:
    """Write a folder that `SubjectFolders` reads: k.png, k.txt, k.mask.png, set.json. Raises OutputError."""
    make_folder(folder)
    digits = len(str(len(given) - 1))
    for number, (picture, caption) in enumerate(zip(given.pictures, given.captions, strict=True)):
        save_png(folder / f"{number:0{digits}d}.png", picture)
        write_file(folder / f"{number:0{digits}d}.txt", caption.encode())
    for number, mask in enumerate(given.masks or ()):
        save_png(folder / f"{number:0{digits}d}.{MASKS}", mask)
    record = {"name": given.subject, "source": given.source, "captions": given.captions, **given.info}
    write_file(folder / RECORD, json_bytes(record, indent=2))


def _rank(file: Path) -> int:
    return CAPTIONS.index(file.suffix.lower())


def _pictures_below(folder: Path) -> list[Path]:
    """Return the pictures of a folder at any depth, hidden ones apart."""
    found: list[Path] = []
    for home, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not is_hidden(each)]
        files = (Path(home, name) for name in names if not is_hidden(name))
        found += [file for file in files if is_picture(file) or file.suffix.lower() in UNREAD_ENDINGS]
    return sorted(found, key=natural_order)


def _without_separator(caption: str, file: Path) -> str:
    if SEPARATOR in caption:
        raise UnusableFileError(
            file, f"{file} holds {SEPARATOR}, which separates the captions of stacked sets."
        )
    return caption


def _is_stacked(picture: Path) -> bool:
    """Return whether a picture's record or captions are those of a stacked set."""
    record, text = picture.with_suffix(".json"), picture.with_suffix(".txt")
    if record.is_file():
        try:
            found = json.loads(record.read_bytes())
        except (OSError, ValueError):  # not ours
            found = None
        if isinstance(found, dict) and found.keys() >= {"source", "subject", "masks"}:
            return True
    try:
        return SEPARATOR.encode() in text.read_bytes()
    except OSError:  # none, or said when it is read
        return False


class FoldersSection(StoredSource):
    """A local folder with a subfolder of pictures for each subject."""

    kind: Literal["folders"] = "folders"

    def open(self, resolution: int, quarantine: Quarantine | None = None) -> SubjectFolders:
        """Return the collection, after a word on files that people would expect to be read."""
        folders = SubjectFolders(self.place, resolution, quarantine)
        left_out = folders.left_out()
        if left_out:
            logger.warning(
                "%d files of %s are left out; the first: %s `jedi data check` names all.",
                len(left_out),
                folders.source,
                left_out[0].reason,
            )
        return folders
