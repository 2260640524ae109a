"""How like their references pictures are, without an evaluation set around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from jedi_diffusion.copies import COPY_DISTANCE
from jedi_diffusion.errors import UsageError
from jedi_diffusion.evaluation.encoders import Encoder, TextEncoder, Thumbnails, checked_rows
from jedi_diffusion.evaluation.metrics import as_thumbnails, copy_distances


@dataclass(frozen=True)
class Likeness:
    """One picture beside its references.

    identity: mean cosine of its features and theirs, -1 to 1. distance: root mean square difference to the
    nearest of them as whole pictures, 0 to 1. prompt: how well it shows its prompt, as `encoder` says it;
    None where there is no prompt, or no encoder that reads it.
    """

    identity: float
    distance: float
    prompt: float | None = None

    @property
    def is_copy(self) -> bool:
        """Whether it is so near to a reference as only a copy is."""
        return self.distance < COPY_DISTANCE

    def record(self) -> dict[str, float | bool | None]:
        """Return the numbers rounded, for JSON."""
        prompt = None if self.prompt is None else round(self.prompt, 4)
        rounded = {"identity": round(self.identity, 4), "distance": round(self.distance, 4)}
        return {**rounded, "is_copy": self.is_copy, "prompt": prompt}


def likeness(
    pictures: Sequence[Image.Image],
    references: Sequence[Image.Image],
    encoders: Sequence[Encoder],
    prompts: Sequence[str] = (),
) -> list[Likeness]:
    """Return each picture beside all references; RGB of any sizes.

    encoders: as `judging.load_encoders` returns them; the first whose cosine means something reads the
    identity, the first that reads texts the prompt. prompts: none, one for all, or one each.
    Raises UsageError for nothing to compare, another number of prompts, and prompts that the encoder cannot
    read.
    """
    if not pictures or not references:
        raise UsageError("A score compares pictures with references: give at least one of each.")
    if len(prompts) not in (0, 1, len(pictures)):
        raise UsageError(
            f"There are {len(prompts)} prompts for {len(pictures)} pictures; give none, one for all, or one "
            "each."
        )
    looks = next(each for each in encoders if each.image_column is not None)
    ours = checked_rows(looks, looks.images(pictures), len(pictures))
    theirs = checked_rows(looks, looks.images(references), len(references))
    identity = (ours @ theirs.T).mean(1)
    whole = Thumbnails()
    small, given = (as_thumbnails(whole.images(each)) for each in (pictures, references))
    distances = copy_distances(small, given)
    agreement = _agreement(pictures, encoders, list(prompts) * (len(pictures) if len(prompts) == 1 else 1))
    return [
        Likeness(float(same), float(distance), prompt)
        for same, distance, prompt in zip(identity, distances, agreement, strict=True)
    ]


def _agreement(
    pictures: Sequence[Image.Image], encoders: Sequence[Encoder], prompts: Sequence[str]
) -> list[float | None]:
    """Return the text score of each picture; a text that the encoder cannot judge by has none."""
    reads = next((each for each in encoders if isinstance(each, TextEncoder)), None)
    if reads is None or not prompts:
        return [None] * len(pictures)
    rows = checked_rows(reads, reads.images(pictures), len(pictures))
    texts = checked_rows(reads, reads.texts(prompts), len(prompts))
    return [float(row @ text) if np.any(text) else None for row, text in zip(rows, texts, strict=True)]
