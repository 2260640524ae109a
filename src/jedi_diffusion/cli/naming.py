"""Names of result files: by prompt and seed, and never one that is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path


def slug(prompt: str, letters: int = 48) -> str:
    """The prompt as a file name: its words in lower case joined by hyphens, at most `letters` characters."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    if len(words) > letters:
        words = words[: letters + 1].rsplit("-", 1)[0][:letters]
    return words or "picture"


def slugs(prompts: Sequence[str]) -> list[str]:
    """A slug for every prompt; where two would be the same, all get their number."""
    plain = [slug(prompt) for prompt in prompts]
    if len(set(plain)) == len(plain):
        return plain
    return [f"{name}-p{number}" for number, name in enumerate(plain, start=1)]


def free_suffix(folder: Path, names: Sequence[str]) -> str:
    """The first of "", "-2", "-3" ... under which none of `names` exists in `folder`."""
    suffixes = chain([""], (f"-{run}" for run in count(2)))
    return next(
        suffix
        for suffix in suffixes
        if not any((folder / with_suffix(name, suffix)).exists() for name in names)
    )


def with_suffix(name: str, suffix: str) -> str:
    """`name` with `suffix` before its extension."""
    path = Path(name)
    return f"{path.stem}{suffix}{path.suffix}"
