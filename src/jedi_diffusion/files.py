"""Files and folders: names in one order and spelling, text without byte-order marks, atomic writes, runs."""

from __future__ import annotations

import codecs
import json
import os
import re
import secrets
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from jedi_diffusion.errors import DataError, JeDiError, OutputError, RecipeError

HIDDEN = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "@recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "desktop.ini",
        "thumbs.db",
        "ehthumbs.db",
    }
)
"""What operating systems and network drives put beside people's files, in lower case."""
NUMBERS = re.compile(r"(\d+)")
CHANGES = "changes.jsonl"
NAMED = 5
"""Keys that a refusal names."""
MASK_ENDING = ".mask.png"
"""The mask of x.jpg is x.mask.png beside it, 255 on the subject."""

Order = tuple[tuple[tuple[str | int, ...], ...], str]


def natural_order(path: str | Path) -> Order:
    """Return the sort key of a file's name or path: folder by folder, digits by their value.

    "2.png" comes before "10.png", and composed and decomposed letters are the same. Names that differ in
    leading zeros or spelling alone keep the order of their characters.
    """
    text = unicodedata.normalize("NFC", str(path))
    parts = (NUMBERS.split(part) for part in text.split("/"))
    # Odd places of a split hold the digits, so text meets text and numbers meet numbers.
    key = tuple(tuple(int(each) if n % 2 else each for n, each in enumerate(part)) for part in parts)
    return key, str(path)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is none of the user's own: ".DS_Store", "@eaDir"."""
    return name.startswith(".") or name.lower() in HIDDEN


def is_mask(path: str) -> bool:
    """Return whether a file is the mask of the picture beside it, by its name."""
    return path.lower().endswith(MASK_ENDING)


def stem_of(path: str) -> str:
    """Return a file's path without its ending, composed (NFC): what a picture, its caption and mask share."""
    stem = path[: -len(MASK_ENDING)] if is_mask(path) else path.rpartition(".")[0]
    return unicodedata.normalize("NFC", stem)


def plain_name(name: str) -> str:
    """Return a name as text that compares and encodes: NFC; bytes that are not UTF-8 become "\\xe9"."""
    readable = os.fsencode(name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", readable)


def slug(prompt: str, letters: int = 48) -> str:
    """Return a prompt as a file name: its words in lower case, joined by hyphens, at most `letters` long."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    if len(words) > letters:
        words = words[: letters + 1].rsplit("-", 1)[0][:letters]
    return words or "picture"


def slugs(prompts: Sequence[str]) -> list[str]:
    """Return a slug for every prompt; where two would be the same, all get their number."""
    plain = [slug(prompt) for prompt in prompts]
    if len(set(plain)) == len(plain):
        return plain
    return [f"{name}-p{number}" for number, name in enumerate(plain, start=1)]


def free_suffix(folder: Path, names: Sequence[str]) -> str:
    """Return the first of "", "-2", "-3" ... under which none of `names` exists in `folder`."""
    suffixes = chain([""], (f"-{run}" for run in count(2)))
    return next(
        suffix
        for suffix in suffixes
        if not any((folder / with_suffix(name, suffix)).exists() for name in names)
    )


def with_suffix(name: str, suffix: str) -> str:
    """Return `name` with `suffix` before its extension."""
    path = Path(name)
    return f"{path.stem}{suffix}{path.suffix}"


def is_utf8(name: str) -> bool:
    """Return whether a file's name is UTF-8. Python keeps other bytes as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder in natural order, hidden ones apart. Raises DataError."""
    return _listed(folder, os.DirEntry.is_file)


def folders_in(folder: Path) -> list[Path]:
    """Return the subfolders of a folder in natural order, hidden ones apart. Raises DataError."""
    return _listed(folder, os.DirEntry.is_dir)


def _listed(folder: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries if not is_hidden(each.name) and wanted(each)]
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be listed: {error.strerror or error}.") from error
    return [folder / name for name in sorted(names, key=natural_order)]


def read_text(path: str | Path, fault: type[JeDiError] = DataError) -> str:
    """Return the text of a file as `decode_text` does. Raises `fault`, which names the file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise fault(f"{path} cannot be read: {error.strerror or error}.") from error
    return decode_text(data, str(path), fault)


def decode_text(data: bytes, name: str, fault: type[JeDiError] = DataError) -> str:
    """Return UTF-8 text, or UTF-16 that begins with its byte-order mark; the mark itself is dropped.

    Line ends become "\\n". Raises `fault`, which gives `name` and the place of the first wrong byte.
    """
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(
            f"{name} is not UTF-8 text (byte 0x{data[error.start]:02x} at place {error.start}): save it as "
            "UTF-8."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, which end in "\\n", "\\r\\n" or "\\r" and in nothing else.

    `str.splitlines` also splits at U+2028, U+0085, form feeds and others, which pasted sentences may hold.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """Return a value as JSON in UTF-8. Names of files that are not UTF-8 survive as JSON's own escapes."""
    return json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace")


def write_file(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` in one step: into a temporary file beside it, flushed to disk, then renamed.

    Raises OutputError with the path and the reason (disk full, read-only, not a folder); what was at `path`
    before is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # gone after the rename; a leftover would fill the disk further
            os.unlink(temporary)


def make_folder(path: str | Path) -> Path:
    """Return the folder `path`, made with its parents where missing, after a trial that files can be made in
    it.

    Raises OutputError with the path and the reason.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OutputError(f"The folder {path} cannot be written to: {error.strerror or error}.") from error


Changes = dict[str, tuple[object, object]]
"""Key to its value before and after."""


@dataclass(frozen=True)
class RunFolder:
    """A folder bound to the settings that it was begun with, which it keeps in the JSON file `record`.

    holds, remedy: what a refusal says of the folder, and what to do. read: what counts of a record, from its
    JSON object; raises ValueError for one that is of another kind. may_change: whether the folder takes
    another value of a key, "section.key" (`changed_keys`), with what is in it already. place: how far it is,
    which changes.jsonl says of such a change.
    """

    path: Path
    record: str = "recipe.json"
    holds: str = "holds a run of another recipe"
    remedy: str = "choose another folder for --out"
    read: Callable[[dict[str, object]], Mapping[str, object]] = dict
    may_change: Callable[[str], bool] = lambda _: False
    place: Callable[[], Mapping[str, object]] = dict

    @property
    def begun(self) -> bool:
        """Whether the folder has its record."""
        return (self.path / self.record).exists()

    def open(self, settings: Mapping[str, object]) -> Path:
        """Make the folder for these settings (plain JSON values), or check that it is theirs; give its path.

        Where keys have changed that may, the record says from now on what they are, and changes.jsonl what
        they were. Raises RecipeError that names what differs, OutputError.
        """
        make_folder(self.path)
        changes = self.check(settings) if self.begun else {}
        if changes:
            place, told = self.place(), self.path / CHANGES
            rows = [{**place, "key": key, "before": old, "after": new} for key, (old, new) in changes.items()]
            before = told.read_bytes() if told.exists() else b""
            write_file(told, before + b"".join(json_bytes(row) + b"\n" for row in rows))
        if changes or not self.begun:
            write_file(self.path / self.record, json_bytes(settings, indent=2))
        return self.path

    def check(self, settings: Mapping[str, object]) -> Changes:
        """Return what differs from the settings that the folder was begun with, all of which may.

        Raises RecipeError that names the keys where they may not.
        """
        file = self.path / self.record
        try:
            told = dict(json.loads(file.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise RecipeError(f"{file} cannot be read: {error}.") from error
        try:
            found, wanted = self.read(told), self.read(json.loads(json_bytes(settings)))
        except ValueError:
            raise RecipeError(f"{self.path} {self.holds}: {self.remedy}.") from None
        changes = changed_keys(found, wanted)
        refused = [key for key in changes if not self.may_change(key)]
        if refused:
            more = f" and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
            names = ", ".join(refused[:NAMED]) + more
            raise RecipeError(f"{self.path} {self.holds} (another {names}): {self.remedy}.")
        return changes


def changed_keys(before: object, after: object, key: str = "") -> Changes:
    """Return where two nests of JSON values differ: "section.list.0.key" to the value before and after.

    What only one of them has is None in the other; lists of other lengths differ as a whole.
    """
    pairs: Iterable[tuple[str | int, object, object]]
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = dict.fromkeys([*before, *after])
        pairs = ((name, before.get(name), after.get(name)) for name in names)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = ((number, *pair) for number, pair in enumerate(zip(before, after, strict=True)))
    else:
        return {} if before == after else {key: (before, after)}
    found = (changed_keys(old, new, f"{key}.{name}" if key else str(name)) for name, old, new in pairs)
    return {name: change for each in found for name, change in each.items()}


@contextmanager
def file_lock(path: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock file `path` between processes: True once it is held, False where another process has it
    and `wait` is not set. A killed process holds nothing.

    Raises OutputError where the file cannot be made, or its file system has no locks.
    """
    import fcntl

    try:
        file = path.open("w")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        except OSError as error:
            raise OutputError(f"{path} cannot be locked: {error.strerror or error}.") from error
        yield held


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` to fill; on leaving it takes the place of `path`.

    The older folder is moved aside, not emptied, so that `path` is whole at any moment but that between two
    renames. If filling fails, `path` is as it was. Raises OutputError with the path and the reason.
    """
    partial, replaced = (path.with_name(f".{path.name}-{state}") for state in ("partial", "replaced"))
    try:
        for left in (partial, replaced):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            path.rename(replaced)
        partial.rename(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        for left in (partial, replaced):
            shutil.rmtree(left, ignore_errors=True)
