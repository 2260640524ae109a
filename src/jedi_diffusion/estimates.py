"""Means with 95% intervals, and scores between a floor and a ceiling.

Letters: P pairs, each of a subject of its own; S subjects; B bootstrap samples.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SAMPLES = 4000
_CHUNK = 500
_Z = 1.959964  # 97.5% point of the normal distribution


class Estimate(NamedTuple):
    """A mean and the ends of its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"

    def record(self) -> dict[str, float]:
        return {name: round(value, 6) for name, value in self._asdict().items()}


def normalised(values: Array, floor: Array, ceiling: Array, seed: int = 0) -> Estimate:
    """Return where the mean of `values` (P,) lies between those of `floor` (0) and `ceiling` (1), all of the
    same pairs.

    A ratio of means: single pairs whose floor and ceiling nearly meet do no harm. The interval is the
    percentile bootstrap over pairs, all three drawn together.
    """
    gap = float(ceiling.mean() - floor.mean())
    draws = bootstrap_means(np.stack([values - floor, ceiling - floor]), seed)
    low, high = np.percentile(draws[0] / draws[1], [2.5, 97.5])
    return Estimate(float(values.mean() - floor.mean()) / gap, float(low), float(high))


def weighted_mean(values: Array, weights: Array, seed: int = 0) -> Estimate:
    """Return the mean of `values` (S,) under `weights` (S,), all above 0.

    The interval is the percentile bootstrap over subjects, values drawn with their weights.
    """
    draws = bootstrap_means(np.stack([values * weights, weights]), seed)
    low, high = np.percentile(draws[0] / draws[1], [2.5, 97.5])
    return Estimate(float((values * weights).sum() / weights.sum()), float(low), float(high))


def bootstrap_means(values: Array, seed: int = 0, samples: int = SAMPLES) -> Array:
    """Return means of (K, P) values over `samples` draws of P pairs with replacement, (K, B)."""
    pairs = values.shape[1]
    return values @ _draws(pairs, seed, samples).T / pairs


@lru_cache(maxsize=4)
def _draws(pairs: int, seed: int, samples: int) -> NDArray[np.int64]:
    """Return how often each pair is in each draw, (B, P).

    Kept: the same subjects are asked about many times.
    """
    rng = np.random.default_rng(seed)
    chunks = (min(_CHUNK, samples - start) for start in range(0, samples, _CHUNK))
    return np.concatenate([rng.multinomial(pairs, np.full(pairs, 1 / pairs), size=each) for each in chunks])


def share(hits: NDArray[np.bool_]) -> Estimate:
    """Return the share of true values with Wilson's interval, which unlike a bootstrap is not empty at 0 and
    1.
    """
    count, mean = len(hits), float(hits.mean())
    middle = (mean + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(mean * (1 - mean) / count + _Z**2 / (4 * count**2))
    return Estimate(mean, max(0.0, middle - half), min(1.0, middle + half))
