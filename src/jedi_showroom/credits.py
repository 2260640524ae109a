"""Whom to credit for what is made from the showroom, weights that were trained on it too."""

from collections import defaultdict
from collections.abc import Sequence
from textwrap import fill

from jedi_showroom.packages import PACKAGES
from jedi_showroom.subjects import Subject

WIDTH = 110


def credits_text(subjects: Sequence[Subject]) -> str:
    """Return the packages with their licences, then every author with licence and works, sorted."""
    by_author: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for subject in subjects:
        by_author[subject.creator, subject.licence].add(subject.noun)
    lines = ["Made from pictures of these works.", "", "Packages:"]
    lines += [f"- {package.file} ({package.licence})" for package in PACKAGES]
    lines += ["", "Authors:"]
    for (creator, licence), nouns in sorted(
        by_author.items(), key=lambda row: (row[0][0].lower(), row[0][1])
    ):
        row = f"- {creator} ({licence}): {', '.join(sorted(nouns))}"
        lines.append(fill(row, WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines) + "\n"
