"""A detector and a segmenter as the scorer's subject finder, as in the paper (section 4: MCLIP-I, MDINO).

Packages of one level do not know each other, so those of the synthesis meet the evaluation here.
Letters: B pictures; H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.evaluation.masking import Mask
    from jedi_diffusion.synthesis.protocols import Detector, Segmenter


@dataclass(frozen=True)
class DetectedSubject:
    """An `evaluation.masking.SubjectFinder`: what the segmenter sees in the detector's surest box.

    The paper names Grounding DINO and SAM and does not say which of several boxes counts.
    """

    detector: Detector
    segmenter: Segmenter

    @property
    def fingerprint(self) -> str:
        return f"surest box of {self.detector.fingerprint}, segmented by {self.segmenter.fingerprint}"

    def find(self, pictures: Sequence[Image.Image], nouns: Sequence[str]) -> list[Mask]:
        """B masks (H, W); all false where nothing is detected. Raises ModelError."""
        found = self.detector.detect(pictures, nouns)
        surest = [[max(each, key=lambda one: one.score).box] if each else [] for each in found]
        masks = self.segmenter.segment(pictures, surest)
        return [
            each[0] if each else np.zeros((picture.height, picture.width), np.bool_)
            for picture, each in zip(pictures, masks, strict=True)
        ]


def load_detected_subject(detector: str, segmenter: str, device: str) -> DetectedSubject:
    """The finder of two transformers folders or Hub ids: Grounding DINO and SAM. Raises ModelError."""
    from jedi_diffusion.synthesis.adapters.grounding_dino import GroundingDinoDetector
    from jedi_diffusion.synthesis.adapters.sam import SamSegmenter
    from jedi_diffusion.synthesis.adapters.settings import GroundingDinoSettings, SamSettings

    return DetectedSubject(
        GroundingDinoDetector(GroundingDinoSettings.model_validate({"model": detector}), device),
        SamSegmenter(SamSettings.model_validate({"model": segmenter}), device),
    )
