"""Boxes and masks of things in pictures: detectors, segmenters, and a subject finder made of both.

The finder serves the masked scores (section 4 of the paper: MCLIP-I, MDINO). Letters: B pictures; K boxes in
a picture; W, H a picture's width and height in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]
"""(H, W), true on the thing."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels from the upper left corner: columns left to right - 1, rows top to bottom - 1."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Detection:
    """A found thing: where it is, and how sure the detector is, in [0, 1]."""

    box: Box
    score: float


class Model(Protocol):
    """What every model has."""

    @property
    def fingerprint(self) -> str:
        """Which weights and settings answer: the same string where the same inputs give the same answers."""
        ...


class Detector(Model, Protocol):
    """An open-vocabulary detector (Grounding DINO in the paper)."""

    def detect(self, pictures: Sequence[Image.Image], names: Sequence[str]) -> list[list[Detection]]:
        """Return everything in RGB picture b that is called `names[b]`, at most a few dozen boxes, in any
        order.
        """
        ...


class Segmenter(Model, Protocol):
    """A model that segments what is inside a box (SAM in the paper)."""

    def segment(self, pictures: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]) -> list[list[Mask]]:
        """Return a mask (H, W) of the whole RGB picture b for each of its K boxes."""
        ...


class SubjectFinder(Model, Protocol):
    """Finds the subject of a picture by its name: a detector and a segmenter, for instance."""

    def find(self, pictures: Sequence[Image.Image], nouns: Sequence[str]) -> list[Mask]:
        """B masks (H, W) of the pictures' sizes, true on what the noun names; all false for nothing."""
        ...


@dataclass(frozen=True)
class DetectedSubject:
    """A `SubjectFinder`: what the segmenter sees in the detector's surest box.

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
