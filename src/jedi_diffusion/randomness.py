"""Random generators: one for each image, from a seed or from another, and torch's global state on loan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_MT19937_WORDS = 624
_MT19937_STATE = slice(24, 24 + 8 * _MT19937_WORDS)
"""Where the bytes of `torch.Generator.get_state` hold the Mersenne twister's words, 8 bytes each."""


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, the global generators of CPU and `device` start from `seed`; after it they are as before."""
    forked = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(seed)
        yield


def seeded_generator(seed: int) -> torch.Generator:
    """A CPU generator for one picture whose state depends on all of `seed`, 0 to 2^64 - 1.

    torch itself uses the low 32 bits of a seed, so that seeds 2^32 apart would repeat each other. Below 2^32
    the generator is torch's own.
    """
    generator = torch.Generator().manual_seed(seed)
    if seed >= 2**32:
        words = np.random.SeedSequence(seed).generate_state(_MT19937_WORDS, np.uint32)
        state = generator.get_state()
        state[_MT19937_STATE] = torch.from_numpy(words.astype(np.uint64).view(np.uint8))
        generator.set_state(state)
    return generator


def spawn_generators(seed: int, count: int, device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator a picture; the seed of number k depends on `seed` and k only, not on `count`."""
    seeds = (np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0] for k in range(count))
    return [torch.Generator(device).manual_seed(int(each) >> 1) for each in seeds]
