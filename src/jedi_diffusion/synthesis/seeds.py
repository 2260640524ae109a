"""Seeds of random choices, each derived from what the choice is for: no order of work can change a result."""

from __future__ import annotations

import hashlib
import json

import numpy as np

LARGEST_SEED = 2**63 - 1
"""What torch, numpy and the common endpoints all accept."""


def derive_seed(seed: int, name: str, purpose: str, *numbers: int) -> int:
    """A seed in [0, 2^63) for one choice, from a run's seed, an object's name, a stage and its counts."""
    key = json.dumps([seed, name, purpose, *numbers]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") & LARGEST_SEED


def derive_generator(seed: int, name: str, purpose: str, *numbers: int) -> np.random.Generator:
    """numpy's generator with the seed of `derive_seed`."""
    return np.random.default_rng(derive_seed(seed, name, purpose, *numbers))
