"""The furniture package: five zip files of OBJ models, each with a catalogue of names and creators."""

import io
import re
from pathlib import Path, PurePosixPath

from jedi_diffusion.files import make_folder
from jedi_showroom.packages import FURNITURE, members, zipped
from jedi_showroom.subjects import Subject, plain_noun

CATALOGUE = "PluginFurnitureCatalog.properties"
EXCLUDED_CATEGORIES = ("Doors and windows", "Staircases")
_ROW = re.compile(r"(\w+)#(\d+)=(.*)")
_LICENCES = {"BlendSwap-CC-0": "CC0 1.0"}  # the other four collections: CC-BY 3.0


def unpack(packages: Path, folder: Path) -> None:
    """Write every collection's files to `folder`/COLLECTION. Members that would land outside are skipped."""
    for name, content in members(packages, FURNITURE):
        root = make_folder(folder / PurePosixPath(name).stem)
        for member, data in zipped(io.BytesIO(content)):
            place = PurePosixPath(member)
            if place.is_absolute() or ".." in place.parts:
                continue
            if place.suffix == ".properties" and place.name != CATALOGUE:
                continue  # translations
            target = root / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def read_subjects(folder: Path) -> list[Subject]:
    """Return the models of the unpacked collections; `member` is the OBJ file's path below `folder`."""
    found: list[Subject] = []
    for catalogue in sorted(folder.glob(f"*/{CATALOGUE}")):
        collection = catalogue.parent.name
        for row in parse_catalogue(catalogue.read_text(encoding="latin-1")):
            if row["category"] in EXCLUDED_CATEGORIES or row.get("doorOrWindow") == "true":
                continue
            found.append(
                Subject(
                    key=f"furniture/{collection}/{PurePosixPath(row['model']).stem}",
                    noun=noun_of(row["name"]),
                    member=f"{collection}{row['model']}",
                    creator=row.get("creator", "unknown"),
                    licence=_LICENCES.get(collection, "CC-BY 3.0"),
                )
            )
    return found


def parse_catalogue(text: str) -> list[dict[str, str]]:
    """Return the rows of a Java properties catalogue: key#NUMBER=value."""
    rows: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        if match := _ROW.match(line.strip()):
            rows.setdefault(int(match[2]), {})[match[1]] = _unescaped(match[3])
    return [rows[number] for number in sorted(rows)]


def noun_of(name: str) -> str:
    """Return the catalogue's name as a caption's noun, without numbers and what follows a comma or a dash."""
    return plain_noun(re.sub(r"\b\d+\b", " ", re.split(r" - |,|\(", name)[0]))


def _unescaped(value: str) -> str:
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), value)
