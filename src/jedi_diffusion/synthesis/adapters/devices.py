"""Where local models run, in which number format, in which batches, and what is said when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from jedi_diffusion.errors import ModelError, UsageError

Result = TypeVar("Result")


def pick_device(name: str) -> torch.device:
    """The device called `name` ("cpu", "cuda", "cuda:1", "mps"). Raises UsageError if it is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"There is no device called {name!r}; write cpu, cuda, cuda:1 or mps.") from error
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if (device.index or 0) >= there.get(device.type, 0):
        raise UsageError(f"This machine has no device {name} that torch can use; take another, such as cpu.")
    return device


def pick_dtype(name: str, device: torch.device, half: torch.dtype) -> torch.dtype:
    """The number format called `name`; "auto" is `half` (or float16 where there is no bfloat16) on CUDA.

    Raises UsageError for a format that the device does not compute in.
    """
    cuda = device.type == "cuda"
    brain = not cuda or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        if not cuda:
            return torch.float32
        return half if brain else torch.float16
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if (dtype == torch.float16 and device.type == "cpu") or (dtype == torch.bfloat16 and not brain):
        raise UsageError(f"The device {device} does not compute in {name}; take dtype auto or float32.")
    return dtype


@contextmanager
def memory_errors(model: str, device: torch.device, batch_size: int) -> Iterator[None]:
    """Turns what torch raises where memory is short into a ModelError that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # The CPU's allocator raises a plain RuntimeError.
        if isinstance(error, RuntimeError) and not (
            isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        ):
            raise
        raise ModelError(
            f"The memory of {device} is too small for {model} in batches of {batch_size}: take a smaller "
            "batch_size, offload: true, a smaller dtype, or another device."
        ) from error


def in_batches(
    keys: Sequence[Hashable], size: int, work: Callable[[list[int]], Sequence[Result]]
) -> list[Result]:
    """One result for each key, from `work` on lists of at most `size` positions whose keys are equal."""
    alike: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        alike.setdefault(key, []).append(position)
    results: dict[int, Result] = {}
    for positions in alike.values():
        for first in range(0, len(positions), size):
            batch = positions[first : first + size]
            results.update(zip(batch, work(batch), strict=True))
    return [results[position] for position in range(len(keys))]
