"""The 3D emoji package: things and animals as pictures with alpha, one view each."""

import json
import re
from pathlib import Path, PurePosixPath

from jedi_showroom.packages import EMOJI, EMOJI_NAMES, members
from jedi_showroom.subjects import Subject, plain_noun

CATEGORIES = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places")
_LEFT_OUT = re.compile(r"\b(face|button|symbol|character|front facing|small|tear off)\b")


def read_images(packages: Path) -> dict[str, bytes]:
    """WebP files by code point sequence ("1f43b")."""
    return {PurePosixPath(name).stem: content for name, content in members(packages, EMOJI)}


def read_subjects(packages: Path, available: set[str]) -> list[Subject]:
    """The emoji of CATEGORIES whose picture is among `available`; `member` is the code point sequence."""
    ((_, content),) = members(packages, EMOJI_NAMES)
    found: list[Subject] = []
    for row in json.loads(content):
        code = row["unified"].lower()
        code = code if code in available else code.replace("-fe0f", "")
        if row["category"] in CATEGORIES and code in available:
            found.append(Subject(f"emoji/{code}", noun_of(row["name"]), code, "Microsoft", "MIT"))
    return found


def noun_of(name: str) -> str:
    """The Unicode name as a caption's noun: "TIGER FACE" is "tiger"."""
    words = re.sub(r"[^a-z' ]", " ", name.lower())
    return plain_noun(_LEFT_OUT.sub(" ", words)) or plain_noun(name)
