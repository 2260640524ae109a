"""Lattice noise in plain tensor operations; integer hashes, so that CPU and GPU give the same patterns.

Every function takes coordinates of any one broadcastable shape and an int32 seed tensor that broadcasts with
them.
"""

import torch
from torch import Tensor


def scramble(x: Tensor, y: Tensor, z: Tensor, seed: Tensor) -> Tensor:
    """32 random bits (int32) for every lattice point (int32 coordinates)."""
    h = x * 374761393 + y * 668265263 + z * 1442695041 + seed * 974634777
    h = (h ^ ((h >> 13) & 0x7FFFF)) * 1274126177
    return h ^ ((h >> 16) & 0xFFFF)


def lattice(x: Tensor, y: Tensor, z: Tensor, seed: Tensor) -> Tensor:
    """Return a uniform value in [0, 1) for every lattice point (int32 coordinates)."""
    return (scramble(x, y, z, seed) & 0xFFFFFF).to(torch.float32) * (1.0 / 16777216.0)


def value_noise(x: Tensor, y: Tensor, z: Tensor, seed: Tensor) -> Tensor:
    """Smooth noise in [0, 1): lattice values joined by smoothstep interpolation."""
    fx, fy, fz = torch.floor(x), torch.floor(y), torch.floor(z)
    i, j, k = fx.to(torch.int32), fy.to(torch.int32), fz.to(torch.int32)
    u, v, w = (_smooth(c - f) for c, f in ((x, fx), (y, fy), (z, fz)))

    def edge(dj: int, dk: int) -> Tensor:
        return torch.lerp(lattice(i, j + dj, k + dk, seed), lattice(i + 1, j + dj, k + dk, seed), u)

    near, far = (torch.lerp(edge(0, dk), edge(1, dk), v) for dk in (0, 1))
    return torch.lerp(near, far, w)


def fractal_noise(x: Tensor, y: Tensor, z: Tensor, seed: Tensor, octaves: int = 3) -> Tensor:
    """Octaves of value noise, each twice as fine and half as strong; in [0, 1)."""
    total, strength = torch.zeros_like(x), 0.0
    for octave in range(octaves):
        total = total + 0.5**octave * value_noise(x * 2**octave, y * 2**octave, z * 2**octave, seed + octave)
        strength += 0.5**octave
    return total / strength


def _smooth(t: Tensor) -> Tensor:
    return t * t * (3 - 2 * t)
