"""Where a computation runs, in which number format and batches, and what is said when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

from jedi_diffusion.errors import ModelError, UsageError

if TYPE_CHECKING:  # recipes and options are read without torch
    import torch

Result = TypeVar("Result")
Precision = Literal["auto", "float32", "bfloat16"]


def pick_device(name: str) -> torch.device:
    """Return the device called `name`: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:1", "mps".

    Raises UsageError if it is not there.
    """
    import torch

    there = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if name == "auto":
        name = next(kind for kind, count in there.items() if count)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"There is no device called {name!r}; write cpu, cuda, cuda:1 or mps.") from error
    if (device.index or 0) >= there.get(device.type, 0):
        raise UsageError(f"This machine has no device {name} that torch can use; take another, such as cpu.")
    return device


def pick_dtype(name: str, device: torch.device, half: str = "bfloat16") -> torch.dtype:
    """Return the number format called `name`; "auto" is `half` on CUDA and float32 elsewhere.

    A GPU that only emulates bfloat16 gets float16 in its place.
    """
    import torch

    if name == "auto":
        name = half if device.type == "cuda" else "float32"
        if name == "bfloat16" and not multiplies_bfloat16("cuda"):
            name = "float16"
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]


def autocast(precision: Precision, device: str) -> AbstractContextManager[None]:
    """Return the autocast context of a precision; "auto" is bfloat16 where the hardware multiplies it.

    A CPU without bfloat16 instructions emulates them, tens of times slower than float32.
    """
    import torch

    kind = torch.device(device).type
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16(kind) else "float32"
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16")


def multiplies_bfloat16(kind: str) -> bool:
    """Return whether devices of this kind ("cuda", "cpu", "mps") have instructions for bfloat16."""
    import torch

    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def memory_errors(model: str, device: torch.device, batch_size: int) -> Iterator[None]:
    """Turn what torch raises where memory is short into a ModelError that says what to do."""
    import torch

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
    """Return one result for each key, from `work` on lists of at most `size` positions whose keys
    are equal.
    """
    alike: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        alike.setdefault(key, []).append(position)
    results: dict[int, Result] = {}
    for positions in alike.values():
        for first in range(0, len(positions), size):
            batch = positions[first : first + size]
            results.update(zip(batch, work(batch), strict=True))
    return [results[position] for position in range(len(keys))]
