"""What identifies weights."""

from typing import Any

import torch
from torch import nn


def add_weights(digest: Any, part: str, module: nn.Module) -> None:
    """Feed a hash (of hashlib) with the names, types, shapes and bytes of a module's weights."""
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"{part}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
