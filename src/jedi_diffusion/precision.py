"""The number format of a step's products."""

from contextlib import AbstractContextManager
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16"]


def autocast(precision: Precision, device: str) -> AbstractContextManager[None]:
    """Return the autocast context of a precision; "auto" is bfloat16 where the hardware multiplies it.

    A CPU without bfloat16 instructions emulates them, tens of times slower than float32.
    """
    import torch  # recipes are read without it

    kind = torch.device(device).type
    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16(kind) else "float32"
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16")


def _multiplies_bfloat16(kind: str) -> bool:
    import torch

    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
