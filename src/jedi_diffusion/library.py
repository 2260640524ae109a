"""A library of somebody's photos: embedded once, found again by what they show (section 8 of the paper).

A folder with two files: `photos.sqlite`, a row for each photo, and `vectors.f32`, its features in the row's
place. Vectors are on the disk before the row that counts them is committed, so that a killed `add` leaves
nothing half done. Words meet pictures by names: a photo's subject is the folder that it lies in, its caption
the text file beside it. Letters: N photos; D features.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jedi_diffusion.errors import DataError, JeDiError, OutputError, PictureError, UsageError
from jedi_diffusion.files import file_lock, files_in, folders_in, make_folder, plain_name, read_text
from jedi_diffusion.pictures import is_picture, open_picture

EncoderName = Literal["lite2", "lite0", "toybox"]
ROWS, VECTORS = "photos.sqlite", "vectors.f32"
FORMAT = "1"
BATCH = 16
"""Photos that are embedded, and committed, at once."""
BLOCK = 8192
"""Vectors that a search multiplies at once."""
LIKENESS = 0.5
"""How much being alike the subject's other photos counts when some are chosen, against being unlike those
that are chosen already."""
COMMON = {
    *("a", "an", "the", "my", "our", "your", "his", "her", "its", "their", "is", "and", "or"),
    *("at", "by", "for", "from", "in", "into", "of", "on", "over", "to", "under", "with"),
}
"""Words that say nothing about what a photo shows."""
SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE photos (place INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
    changed INTEGER NOT NULL, subject TEXT NOT NULL, caption TEXT NOT NULL);
CREATE INDEX subjects ON photos (subject);
CREATE TABLE refused (path TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL,
    reason TEXT NOT NULL);
"""


class Encoder(Protocol):
    """Features of what pictures show, (N, D) of length 1. fingerprint: which weights and preprocessing."""

    @property
    def fingerprint(self) -> str: ...

    def identities(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]: ...


class Entry(NamedTuple):
    """A photo of the library. place: its number among the vectors; likeness: to what was looked for."""

    place: int
    path: str
    subject: str
    caption: str
    likeness: float


@dataclass
class Added:
    """What an `add` has done, in photos."""

    new: int = 0
    kept: int = 0
    refused: int = 0


def encoder_of(name: EncoderName) -> Encoder:
    """Return the encoder of this name. Raises UsageError where what it needs is not installed."""
    from jedi_diffusion.choosing import LiteEyes, ToyboxEyes

    return ToyboxEyes() if name == "toybox" else LiteEyes(name)


class Library:
    """A library that is there. Raises DataError for a folder that is none, or a damaged one."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / ROWS).is_file():
            raise DataError(f"{self.folder} is no library: `jedi library add PHOTOS --library` makes one.")
        with self._rows() as rows:
            about = dict(rows.execute("SELECT name, value FROM about"))
        if about.get("format") != FORMAT:
            raise DataError(f"{self.folder} was written by another version: make the library anew.")
        self.encoder: EncoderName = about["encoder"]
        self.fingerprint, self.width = about["fingerprint"], int(about["width"])

    @classmethod
    def create(cls, folder: str | Path, encoder: EncoderName, fingerprint: str, width: int) -> Library:
        """Return a new library without photos. Raises OutputError."""
        rows = make_folder(folder) / ROWS
        partial = rows.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        about = {"format": FORMAT, "encoder": encoder, "fingerprint": fingerprint, "width": str(width)}
        connection = sqlite3.connect(partial)
        try:
            connection.executescript(SCHEMA)
            connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            connection.commit()
        except sqlite3.Error as error:
            raise OutputError(f"{rows} cannot be written: {error}.") from error
        finally:
            connection.close()
        partial.replace(rows)
        return cls(folder)

    def check_encoder(self, name: EncoderName | None, encoder: Encoder | None = None) -> None:
        """Raise UsageError where vectors of the encoder cannot be compared with the library's."""
        if name not in (None, self.encoder):
            raise UsageError(
                f"The library {self.folder} was made with the encoder {self.encoder}, whose vectors cannot "
                f"be compared with those of {name}: leave --encoder out, or make another library."
            )
        if encoder is not None and encoder.fingerprint != self.fingerprint:
            raise UsageError(
                f"The library {self.folder} was made with other weights of {self.encoder}: make it anew."
            )

    def __len__(self) -> int:
        with self._rows() as rows:
            return int(rows.execute("SELECT count(*) FROM photos").fetchone()[0])

    def subjects(self) -> dict[str, int]:
        """Return how many photos there are of each subject, in the order of their names."""
        with self._rows() as rows:
            found = rows.execute("SELECT subject, count(*) FROM photos GROUP BY subject ORDER BY subject")
            return dict(found.fetchall())

    def refused(self) -> dict[str, str]:
        """Return why each file that is no photo was left out."""
        with self._rows() as rows:
            return dict(rows.execute("SELECT path, reason FROM refused ORDER BY path").fetchall())

    def add(self, photos: str | Path, encoder: Encoder) -> Iterator[Added]:
        """Embed the photos of a folder and of all folders in it, yielding what is done after each few.

        Those that are there already, and have not changed, stay as they are. One that cannot be read is
        noted with the reason, and is tried again once it has changed. Raises DataError for no folder,
        OutputError, and UsageError for another encoder or while another process adds.
        """
        self.check_encoder(None, encoder)
        with file_lock(self.folder / "lock", wait=False) as held:
            if not held:
                raise UsageError(f"Another process is adding to {self.folder}; try again when it is done.")
            yield from self._add(Path(photos), encoder)

    def _add(self, folder: Path, encoder: Encoder) -> Iterator[Added]:
        done, waiting = Added(), list[tuple[Path, Image.Image]]()
        for path in photos_below(folder.resolve()):
            if self._is_known(path):
                done.kept += 1
                continue
            try:
                waiting.append((path, open_picture(path)))
            except PictureError as error:
                self._refuse(path, str(error))
                done.refused += 1
            if len(waiting) == BATCH:
                done.new += self._embed(waiting, encoder)
                waiting = []
                yield done
        done.new += self._embed(waiting, encoder)
        yield done

    def _is_known(self, path: Path) -> bool:
        stamp = (str(path), *_stamp(path))
        with self._rows() as rows:
            asked = " WHERE path = ? AND size = ? AND changed = ?"
            tables = ("photos", "refused")
            return any(rows.execute(f"SELECT 1 FROM {name}{asked}", stamp).fetchone() for name in tables)

    def _refuse(self, path: Path, reason: str) -> None:
        with self._rows() as rows:
            row = (str(path), *_stamp(path), reason)
            rows.execute("INSERT OR REPLACE INTO refused VALUES (?, ?, ?, ?)", row)
            rows.execute("DELETE FROM photos WHERE path = ?", row[:1])

    def _embed(self, waiting: Sequence[tuple[Path, Image.Image]], encoder: Encoder) -> int:
        """Write vectors first, then the rows that count them. Returns how many photos there are."""
        if not waiting:
            return 0
        vectors = encoder.identities([picture for _, picture in waiting]).astype("<f4")
        with self._rows() as rows:
            first = int(rows.execute("SELECT coalesce(max(place) + 1, 0) FROM photos").fetchone()[0])
            self._write(vectors, first)
            for place, (path, _) in enumerate(waiting, start=first):
                row = (place, str(path), *_stamp(path), subject_of(path), caption_of(path))
                rows.execute("DELETE FROM photos WHERE path = ?", (str(path),))
                rows.execute("DELETE FROM refused WHERE path = ?", (str(path),))
                rows.execute("INSERT INTO photos VALUES (?, ?, ?, ?, ?, ?)", row)
        return len(waiting)

    def _write(self, vectors: NDArray[np.float32], first: int) -> None:
        """Write vectors from place `first` on, over what a killed process may have left there."""
        path = self.folder / VECTORS
        try:
            with path.open("r+b" if path.exists() else "xb") as file:
                file.seek(first * self.width * 4)
                file.write(vectors.tobytes())
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error

    def vectors(self) -> NDArray[np.float32]:
        """Return the vectors (N, D) of all places, read as they are needed. Raises DataError."""
        path = self.folder / VECTORS
        with self._rows() as rows:
            count = int(rows.execute("SELECT coalesce(max(place) + 1, 0) FROM photos").fetchone()[0])
        if count == 0:
            return np.empty((0, self.width), np.float32)
        try:
            return np.memmap(path, "<f4", "r", shape=(count, self.width))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} does not hold the {count} vectors that {ROWS} counts.") from error

    def nearest(self, vector: NDArray[np.float32], count: int) -> list[Entry]:
        """Return the photos that are most like a vector (D,) of length 1, the likest first."""
        likeness = similarities(self.vectors(), vector)
        found: list[Entry] = []
        order = np.argsort(-likeness, kind="stable")
        with self._rows() as rows:
            for place in order.tolist():  # places without a row are of photos that have changed
                row = rows.execute(
                    "SELECT place, path, subject, caption FROM photos WHERE place = ?", (place,)
                ).fetchone()
                if row is not None:
                    found.append(Entry._make((*row, float(likeness[place]))))
                if len(found) == count:
                    break
        return found

    def subject_in(self, prompt: str) -> str:
        """Return the subject whose name stands in a prompt, all its words; the longest where several do.

        Raises UsageError where none does, or two of one length.
        """
        said = set(words_of(prompt))
        named = [name for name in self.subjects() if words_of(name) and said.issuperset(words_of(name))]
        longest = max((len(words_of(name)) for name in named), default=0)
        best = [name for name in named if len(words_of(name)) == longest]
        if len(best) == 1:
            return best[0]
        listed = ", ".join(best or list(self.subjects())[:12]) or "nothing"
        trouble = "names several subjects" if best else "names no subject"
        raise UsageError(
            f"The prompt {prompt!r} {trouble} of the library ({listed}): say which with --library-subject."
        )

    def choose(self, prompt: str, subject: str | None = None, count: int = 4) -> list[Entry]:
        """Return photos of a subject for a prompt, none of them alike where others are there.

        subject: its name; None: as the prompt names it. The first is the one that is most like the others;
        each next one is like them, and unlike those before it. Words of the prompt in a photo's caption speak
        for it. Files that are gone are passed over. Raises UsageError.
        """
        subject = self.subject_in(prompt) if subject is None else subject
        with self._rows() as rows:
            asked = "SELECT place, path, subject, caption FROM photos WHERE subject = ? ORDER BY path"
            found = [Entry._make((*row, 1.0)) for row in rows.execute(asked, (subject,))]
        found = [each for each in found if Path(each.path).is_file()]
        if not found:
            listed = ", ".join(list(self.subjects())[:12]) or "nothing"
            raise UsageError(f"The library has no photo of {subject!r}; it has {listed}.")
        vectors = np.array(self.vectors()[[each.place for each in found]])
        middle = vectors.mean(0)
        likeness = vectors @ (middle / max(float(np.linalg.norm(middle)), 1e-9))
        said = set(words_of(prompt)) - set(words_of(subject))
        words = np.array([len(said.intersection(words_of(each.caption))) for each in found])
        worth = likeness + 0.1 * words
        kept: list[int] = []
        nearest = np.zeros(len(found))
        while len(kept) < min(count, len(found)):
            score = LIKENESS * worth - (1 - LIKENESS) * nearest
            score[kept] = -np.inf
            kept.append(int(np.argmax(score)))
            nearest = np.maximum(nearest, vectors @ vectors[kept[-1]])
        return [found[number]._replace(likeness=float(likeness[number])) for number in kept]

    @contextmanager
    def _rows(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection; what is done through it is committed together, or not at all."""
        path = self.folder / ROWS
        connection = sqlite3.connect(path)
        try:
            with connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} is damaged or cannot be written: {error}.") from error
        finally:
            connection.close()


def open_library(folder: str | Path, name: EncoderName | None) -> tuple[Library, Encoder]:
    """Return a library to add to, made where there is none, and its encoder.

    name: the encoder's; None: that of the library, and of a new one lite2 where it is installed, else
    toybox. Raises UsageError for a library of another encoder, DataError.
    """
    if (Path(folder) / ROWS).is_file():
        library = Library(folder)
        library.check_encoder(name)
        encoder = encoder_of(library.encoder)
        library.check_encoder(None, encoder)
        return library, encoder
    chosen: EncoderName = name or "lite2"
    try:
        encoder = encoder_of(chosen)
    except UsageError:
        if name is not None:
            raise
        chosen, encoder = "toybox", encoder_of("toybox")
    width = encoder.identities([Image.new("RGB", (64, 64), "gray")]).shape[1]
    return Library.create(folder, chosen, encoder.fingerprint, width), encoder


def similarities(vectors: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine (N,) of each vector (N, D) with one (D,), all of length 1."""
    starts = range(0, len(vectors), BLOCK)
    parts = [np.asarray(vectors[start : start + BLOCK]) @ vector for start in starts]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def photos_below(folder: Path) -> Iterator[Path]:
    """Yield the pictures of a folder and of those in it, in natural order. Raises DataError."""
    yield from (each for each in files_in(folder) if is_picture(each))
    for each in folders_in(folder):
        yield from photos_below(each)


def subject_of(path: Path) -> str:
    """Return what a photo shows, by the name of its folder."""
    return " ".join(re.findall(r"\w+", plain_name(path.parent.name).replace("_", " ").lower()))


def caption_of(path: Path) -> str:
    """Return the text beside a photo, in one line; "" where there is none, or it is no text."""
    beside = path.with_suffix(".txt")
    try:
        return " ".join(read_text(beside).split()) if beside.is_file() else ""
    except JeDiError:
        return ""


def words_of(text: str) -> list[str]:
    """Return the words of a text that say something, in small letters."""
    return [word for word in re.findall(r"[^\W_]+", text.lower()) if word not in COMMON]


def _stamp(path: Path) -> tuple[int, int]:
    """Return what tells whether a file has changed: its size, and when it was written."""
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return found.st_size, found.st_mtime_ns
