"""What can be shown: subjects by name, with the author to credit, and the split each belongs to."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Literal

from jedi_toybox.subjects import HELD_OUT_CLASSES

Split = Literal["train", "held_out"]
HELD_OUT_SHARE = 0.1
PREFIX_OF_FLAT = "emoji/"  # of the keys of subjects that are pictures


@dataclass(frozen=True)
class Subject:
    """A thing or an animal. `key` is unique and stays the same between versions of this package; `noun` goes
    into captions; `member` is its file in the package it comes from.
    """

    key: str
    noun: str
    member: str
    creator: str
    licence: str

    @property
    def phrase(self) -> str:
        """The noun with its article: "a lamp", "an owl"."""
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"

    @property
    def is_flat(self) -> bool:
        """Whether it is a picture, with one view."""
        return self.key.startswith(PREFIX_OF_FLAT)

    @property
    def split(self) -> Split:
        """One subject in ten is held out whole, chosen by its noun, so that twins stay together; so are the
        classes that the toybox holds out.
        """
        if self.noun in HELD_OUT_CLASSES:
            return "held_out"
        digest = hashlib.sha256(f"showroom/{self.noun}".encode()).digest()
        return "held_out" if int.from_bytes(digest[:4], "little") < HELD_OUT_SHARE * 2**32 else "train"


@cache
def exclusions() -> dict[str, str]:
    """Patterns of keys and nouns that are not shown, each with its reason, from excluded.txt."""
    lines = files("jedi_showroom").joinpath("excluded.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, reason in rows}


def excluded(subject: Subject) -> str | None:
    """Why the subject is not shown, or None."""
    for pattern, reason in exclusions().items():
        if fnmatchcase(subject.noun, pattern) or fnmatchcase(subject.key, pattern):
            return reason
    return None


def shown(subjects: Sequence[Subject]) -> list[Subject]:
    """Return the subjects that are not excluded, sorted by key."""
    return sorted((each for each in subjects if excluded(each) is None), key=lambda each: each.key)


_LOOKS = re.compile(
    r"\b(red|orange|yellow|green|blue|purple|pink|brown|black|white|gr[ae]y|gold|silver|small|large|big|little|wooden)\b"
)


def plain_noun(words: str) -> str:
    """Return a caption's noun: lower-case letters, without colours and sizes, which only a reference may
    tell.
    """
    spaced = re.sub(r"[^a-z' ]", " ", words.lower())
    noun = " ".join(_LOOKS.sub(" ", spaced).split())
    return noun or " ".join(spaced.split())
