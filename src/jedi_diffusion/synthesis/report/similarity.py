"""How much pictures of one set look alike (Table 8), and which are nearly the same picture.

Letters: N pictures of a set; I pictures; D features; P pairs; T pixels of a thumbnail's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jedi_diffusion.copies import COPY_DISTANCE, COPY_SIDE, shifted_distance, thumbnail
from jedi_diffusion.errors import ModelError
from jedi_diffusion.estimates import Estimate, share, weighted_mean

Rows = NDArray[np.float64]
BLOCK = 512  # thumbnails that are compared with all others at once


class PictureEncoder(Protocol):
    """Pictures as rows of numbers whose cosines are compared."""

    @property
    def fingerprint(self) -> str:
        """Which weights and preprocessing answer."""
        ...

    @property
    def image_column(self) -> str | None:
        """What the cosine is called in tables ("CLIP-I"); an encoder with None is not asked."""
        ...

    def images(self, pictures: Sequence[Image.Image]) -> NDArray[Any]:
        """Return (I, D) of RGB pictures of any sizes."""
        ...


class Similarity(NamedTuple):
    """Mean cosines, with 95% intervals over sets: of pictures of one set, and of different subjects that are
    called the same. None where there is no pair.
    """

    inside: Estimate | None
    between: Estimate | None


@dataclass
class SetFeatures:
    """Features of sets, fed set by set.

    features: by the encoder's column, an (N, D) array of unit rows a set. subjects: whom each set shows;
    names: what it is called.
    """

    encoders: Sequence[PictureEncoder]
    features: dict[str, list[Rows]] = field(init=False)
    subjects: list[object] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    thumbnails: list[NDArray[np.uint8]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.features = {each.image_column: [] for each in self.encoders if each.image_column}

    def add(self, name: str, subject: object, pictures: Sequence[Image.Image]) -> None:
        """Take in a set's pictures. Raises ModelError where an encoder gives no directions."""
        self.names.append(name)
        self.subjects.append(subject)
        self.thumbnails.append(np.stack([thumbnail(each) for each in pictures]))
        for encoder in self.encoders:
            if encoder.image_column:
                rows = np.asarray(encoder.images(pictures), np.float64)
                self.features[encoder.image_column].append(_unit(rows, len(pictures), encoder.fingerprint))

    def inside(self, column: str) -> Rows:
        """Return the mean cosine inside each set; NaN for a set of one picture."""
        return np.array([_inside(rows) for rows in self.features[column]])

    def similarity(self, column: str) -> Similarity:
        """Return means over all pairs."""
        sets = self.features[column]
        values, weights = self.inside(column), np.array([_pairs(len(rows)) for rows in sets], np.float64)
        groups = [
            [number for number, each in enumerate(self.names) if each == name]
            for name in dict.fromkeys(self.names)
        ]
        between = [
            _between([sets[number] for number in group], [self.subjects[number] for number in group])
            for group in groups
        ]
        return Similarity(
            _mean(values, weights),
            _mean(np.array([mean for mean, _ in between]), np.array([pairs for _, pairs in between])),
        )

    def copies_inside(self) -> Estimate | None:
        """Of the pairs of pictures in one set, those that are nearly the same picture."""
        pairs = [(each[one], each[other]) for each in self.thumbnails for one, other in _numbers(len(each))]
        if not pairs:
            return None
        first, second = (np.stack(side).astype(np.float64) / 255 for side in zip(*pairs, strict=True))
        return share(shifted_distance(first, second) < COPY_DISTANCE)

    def copies_across(self) -> Estimate | None:
        """Of the pictures, those that are nearly the same as a picture of another set, not moved."""
        if len(self.thumbnails) < 2:
            return None
        pixels = np.concatenate(self.thumbnails).reshape(-1, 3 * COPY_SIDE**2).astype(np.float32) / 255
        owners = np.repeat(np.arange(len(self.thumbnails)), [len(each) for each in self.thumbnails])
        lengths = np.square(pixels).mean(1)
        hits = []
        for start in range(0, len(pixels), BLOCK):
            part = slice(start, start + BLOCK)
            products = pixels[part] @ pixels.T / pixels.shape[1]
            squares = lengths[part, None] + lengths - 2 * products
            squares[owners[part, None] == owners] = np.inf
            hits.append(squares.min(1) < COPY_DISTANCE**2)
        return share(np.concatenate(hits))


def _unit(rows: Rows, count: int, fingerprint: str) -> Rows:
    if rows.ndim != 2 or len(rows) != count or not np.isfinite(rows).all() or not rows.any(axis=1).all():
        raise ModelError(
            f"The encoder {fingerprint[:40]} answered {count} pictures with an array of shape {rows.shape} "
            "where a row of finite numbers of a length above 0 is due for each."
        )
    unit: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _numbers(count: int) -> list[tuple[int, int]]:
    return list(combinations(range(count), 2))


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _inside(rows: Rows) -> float:
    """Return the mean cosine of the pairs of unit rows (N, D): |sum|^2 counts each twice, and each row
    itself.
    """
    count = len(rows)
    return float((np.square(rows.sum(0)).sum() - count) / (2 * _pairs(count))) if count > 1 else np.nan


def _between(sets: Sequence[Rows], subjects: Sequence[object]) -> tuple[float, int]:
    """(mean cosine, P) of the pairs of unit rows that are of different subjects; NaN where there is none."""
    whole = np.sum([rows.sum(0) for rows in sets], axis=0)
    product, pairs = np.square(whole).sum(), sum(map(len, sets)) ** 2
    for subject in dict.fromkeys(subjects):
        own = [rows for rows, each in zip(sets, subjects, strict=True) if each == subject]
        product -= np.square(np.sum([rows.sum(0) for rows in own], axis=0)).sum()
        pairs -= sum(map(len, own)) ** 2
    return (float(product / pairs), pairs // 2) if pairs else (np.nan, 0)


def _mean(values: Rows, weights: NDArray[Any]) -> Estimate | None:
    there = weights > 0
    return weighted_mean(values[there], weights[there].astype(np.float64)) if there.any() else None
