"""Random generators of images, torch's global state on loan, and random numbers and orders without state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_MT19937_WORDS = 624
_MT19937_STATE = slice(24, 24 + 8 * _MT19937_WORDS)
"""Where the bytes of `torch.Generator.get_state` hold the Mersenne twister's words, 8 bytes each."""


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, the global generators of CPU and `device` start from `seed`; after it they are as before."""
    import torch

    forked = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(seed)
        yield


def seeded_generator(seed: int) -> torch.Generator:
    """Return a CPU generator for one picture whose state depends on all of `seed`, 0 to 2^64 - 1.

    torch itself uses the low 32 bits of a seed, so that seeds 2^32 apart would repeat each other. Below 2^32
    the generator is torch's own.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    if seed >= 2**32:
        words = np.random.SeedSequence(seed).generate_state(_MT19937_WORDS, np.uint32)
        state = generator.get_state()
        state[_MT19937_STATE] = torch.from_numpy(words.astype(np.uint64).view(np.uint8))
        generator.set_state(state)
    return generator


def spawn_generators(seed: int, count: int, device: torch.device | str = "cpu") -> list[torch.Generator]:
    """Return one generator a picture; the seed of number k depends on `seed` and k only, not on `count`."""
    import torch

    seeds = (np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0] for k in range(count))
    return [torch.Generator(device).manual_seed(int(each) >> 1) for each in seeds]


ROUNDS = 8
LARGEST_SEED = 2**63 - 1
"""What torch, numpy and the common endpoints all accept."""


def keyed_number(*parts: int | str) -> int:
    """Return a 64-bit number that is a pure function of the parts, evenly spread and without visible
    pattern.
    """
    text = "/".join(map(repr, parts))  # repr keeps 1 and "1" apart
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def derive_seed(seed: int, name: str, purpose: str, *numbers: int) -> int:
    """Return a seed in [0, 2^63) for one choice, from a run's seed, an object's name, a stage and its
    counts.
    """
    key = json.dumps([seed, name, purpose, *numbers]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") & LARGEST_SEED


def derive_generator(seed: int, name: str, purpose: str, *numbers: int) -> np.random.Generator:
    """Return numpy's generator with the seed of `derive_seed`."""
    return np.random.default_rng(derive_seed(seed, name, purpose, *numbers))


class Permutation:
    """A bijection of 0 ... length - 1, chosen by a key: `permutation(index)` is where `index` goes.

    A Feistel network over the smallest power of two that holds the range; results outside are put through
    again until one is inside (fewer than two rounds on average).
    """

    def __init__(self, length: int, *key: int | str) -> None:
        if length < 1:
            raise ValueError("a permutation needs at least one number")
        self.length = length
        bits = max(2, (length - 1).bit_length())
        self._low = bits // 2
        self._high = bits - self._low
        self._key = keyed_number(*key).to_bytes(8, "little")

    def __call__(self, index: int) -> int:
        if not 0 <= index < self.length:
            raise IndexError(index)
        while True:
            index = self._once(index)
            if index < self.length:
                return index

    def _once(self, value: int) -> int:
        low_mask, high_mask = (1 << self._low) - 1, (1 << self._high) - 1
        low, high = value & low_mask, value >> self._low
        for turn in range(0, ROUNDS, 2):
            low ^= self._mixed(turn, high) & low_mask
            high ^= self._mixed(turn + 1, low) & high_mask
        return high << self._low | low

    def _mixed(self, turn: int, half: int) -> int:
        block = turn.to_bytes(1, "little") + half.to_bytes(8, "little")
        return int.from_bytes(hashlib.blake2b(block, key=self._key, digest_size=8).digest(), "little")
