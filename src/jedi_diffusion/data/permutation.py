"""Random orders without state: a keyed bijection of the first n numbers, each value in constant time."""

from __future__ import annotations

import hashlib

ROUNDS = 8


def keyed_number(*parts: int | str) -> int:
    """A 64-bit number that is a pure function of the parts, evenly spread and without visible pattern."""
    text = "/".join(map(repr, parts))  # repr keeps 1 and "1" apart
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


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
