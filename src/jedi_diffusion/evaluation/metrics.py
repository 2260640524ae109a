"""The scores as functions of features: what is compared with what, and how it is averaged.

Sections 4 and 6 of the paper. Letters: I scored pictures; P true photos of a subject; D features; K pictures
of one prompt from as many seeds; S subjects.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jedi_diffusion.copies import COPY_DISTANCE, COPY_SHIFT, COPY_SIDE
from jedi_diffusion.estimates import Estimate, weighted_mean

Array = NDArray[np.float64]
Comparison = Literal["all", "others", "inputs"]
Averaging = Literal["pairs", "subjects"]

COMPARISONS: dict[Comparison, str] = {
    "all": "all photos of the subject",
    "others": "all photos but the inputs",
    "inputs": "the inputs only",
}
COPY_WINDOWS = [(down, right) for down in range(2 * COPY_SHIFT + 1) for right in range(2 * COPY_SHIFT + 1)]


class Sums(NamedTuple):
    """For each picture, (I,): the sum of its scores and how many there are, one a compared photo."""

    total: Array
    pairs: NDArray[np.int64]

    def at(self, places: NDArray[np.int64]) -> Sums:
        """Those of some pictures."""
        return Sums(self.total[places], self.pairs[places])


def cosines(first: NDArray[np.floating], second: NDArray[np.floating]) -> Array:
    """Return (I, P) cosines between the rows of (I, D) and (P, D).

    A row of NaN stands for a picture on which no subject was found: all its cosines are 0. Rows that are all
    such may be of any width.
    """
    one, two = (np.asarray(each, np.float64) for each in (first, second))
    if np.isnan(one).all() or np.isnan(two).all():
        return np.zeros((len(one), len(two)))
    lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(two, axis=1)
    return np.nan_to_num((one @ two.T) / lengths, nan=0.0)


def is_compared(
    comparison: Comparison, photos: int, inputs: Collection[int], left_out: int | None = None
) -> NDArray[np.bool_]:
    """Return (P,) which of the subject's photos a picture made from `inputs` is compared with.

    left_out: the number of a photo that is the scored picture itself (the real-photo oracle).
    """
    numbers = range(photos)
    wanted = {
        "all": set(numbers),
        "others": set(numbers) - set(inputs),
        "inputs": set(inputs),
    }[comparison] - {left_out}
    return np.array([number in wanted for number in numbers])


def pair_sums(similar: Array, compared: NDArray[np.bool_]) -> Sums:
    """Return sums of (I, P) cosines over the photos that each picture is compared with, (I, P)."""
    return Sums((similar * compared).sum(1), compared.sum(1))


def text_sums(pictures: NDArray[np.floating], texts: NDArray[np.floating]) -> Sums:
    """Return dot products of each picture's features with those of its own prompt, both (I, D).

    For CLIP's features of length 1 these are the cosines of CLIP-T: no factor, nothing cut off below 0. A row
    of zeros stands for a text of which the encoder knows nothing: its picture is not scored.
    """
    products = (np.asarray(pictures, np.float64) * np.asarray(texts, np.float64)).sum(1)
    return Sums(products, np.any(texts, axis=1).astype(np.int64))


def average(sums: Sums, subjects: NDArray[np.int64], averaging: Averaging) -> Estimate | None:
    """Return the mean with its 95% interval over subjects; None where nothing was compared.

    subjects: (I,) the number of each picture's subject. "pairs": the mean over all pairs of picture and
    photo (section 6 of the paper). "subjects": the mean over photos for each picture, over pictures for
    each subject, then over subjects.
    """
    values, weights = subject_means(sums, subjects, averaging)
    return weighted_mean(values, weights) if len(values) else None


def subject_means(sums: Sums, subjects: NDArray[np.int64], averaging: Averaging) -> tuple[Array, Array]:
    """Return (S,) the mean of each subject that is compared with anything, and (S,) its weight in the
    average.
    """
    values, weights = [], []
    for subject in np.unique(subjects):
        chosen = (subjects == subject) & (sums.pairs > 0)
        if not chosen.any():
            continue
        total, count = sums.total[chosen], sums.pairs[chosen]
        values.append(total.sum() / count.sum() if averaging == "pairs" else (total / count).mean())
        weights.append(count.sum() if averaging == "pairs" else 1)
    return np.array(values), np.array(weights, np.float64)


def mean_pairwise_distance(features: NDArray[np.floating]) -> float:
    """Return mean of 1 - cosine over all pairs of rows of (K, D), K at least 2: how much seeds differ."""
    similar = cosines(features, features)
    return float(1 - similar[np.triu_indices(len(features), 1)].mean())


def copy_distances(pictures: NDArray[np.uint8], references: NDArray[np.uint8]) -> Array:
    """Return (I,) `copies.shifted_distance` of each thumbnail (I, 3, T, T) to the nearest of (R, 3, T, T), in
    0..1.

    As |a|^2 + |b|^2 - 2ab over all shifts at once: much faster, and exact, since all are whole numbers.
    """
    squares = _squares(pictures, references)
    return np.sqrt(squares.min((1, 2))) / 255


def _squares(pictures: NDArray[np.uint8], references: NDArray[np.uint8]) -> Array:
    """Return (I, shifts, R) mean squared differences of thumbnails (I, 3, T, T) and (R, 3, T, T), of 255."""
    middle = COPY_WINDOWS[len(COPY_WINDOWS) // 2]
    ours = _window(pictures, *middle)
    theirs = np.concatenate([_window(references, *place) for place in COPY_WINDOWS])
    squares = np.square(ours).sum(1)[:, None] + np.square(theirs).sum(1) - 2 * ours @ theirs.T
    return squares.reshape(len(ours), len(COPY_WINDOWS), -1) / ours.shape[1]


def _window(thumbnails: NDArray[np.uint8], down: int, right: int) -> Array:
    """Return (I, 3 t t) of (I, 3, T, T): what is left of thumbnails where the border of the largest shift is
    off.
    """
    inner = COPY_SIDE - 2 * COPY_SHIFT
    part = thumbnails[:, :, down : down + inner, right : right + inner]
    return part.reshape(len(thumbnails), -1).astype(np.float64)


def copy_threshold(photos: list[NDArray[np.uint8]]) -> float:
    """Below this distance a picture is a copy: no two true photos of one subject are so near.

    photos: the thumbnails (P, 3, T, T) of each subject. At most COPY_DISTANCE, which also stands where no
    subject has two photos.
    """
    least = COPY_DISTANCE
    for each in photos:
        if len(each) < 2:
            continue
        squares = _squares(each, each)
        squares[np.arange(len(each)), :, np.arange(len(each))] = np.inf  # a photo beside itself
        least = min(least, float(np.sqrt(squares.min()) / 255))
    return least


def as_thumbnails(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (I, 3 T T) rows of features as thumbnails (I, 3, T, T)."""
    return rows.reshape(-1, 3, COPY_SIDE, COPY_SIDE)
