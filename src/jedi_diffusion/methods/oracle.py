"""Oracle: the true picture of each prompt, where one is known. What a perfect method would score."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from jedi_diffusion.errors import UsageError
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.evaluation.generate import open_references
from jedi_diffusion.methods.settings import MethodSettings
from jedi_diffusion.pictures import open_picture

Key = tuple[bytes, str]


@dataclass(frozen=True)
class Oracle:
    """`truths` holds the true pictures by `oracle_key`; the seed chooses among several.

    Raises UsageError for references and a prompt of which none is known.
    """

    truths: Mapping[Key, Sequence[Image.Image]]

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        made = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            known = self.truths.get(oracle_key(references, prompt))
            if not known:
                raise UsageError(f"The oracle knows no true picture for {prompt!r} with these references.")
            made.append(known[seed % len(known)].copy())
        return made


def oracle_key(references: Sequence[Image.Image], prompt: str) -> Key:
    """Return what a true picture is found by: the pixels of the references, in order, and the prompt."""
    digest = hashlib.sha256()
    for picture in references:
        digest.update(repr((picture.size, picture.mode)).encode())
        digest.update(picture.tobytes())
    return digest.digest(), prompt


class OracleMethod(MethodSettings):
    """Gives the true picture of the prompt; for sets that have them."""

    kind: Literal["oracle"]

    def build(self, wanted: EvaluationSet, device: torch.device, store: Path) -> Oracle:
        if not all(subject.truths for subject in wanted.subjects):
            raise UsageError(
                "The method oracle needs a true picture for every prompt; the oracle of photos stands in "
                "every report without it."
            )
        truths = {}
        for group in wanted.groups():
            references = open_references(group[0])
            for case in group:
                picture = open_picture(case.subject.truths[case.prompt].path)
                truths[oracle_key(references, case.text)] = [picture]
        return Oracle(truths)
