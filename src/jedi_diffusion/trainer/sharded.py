"""Tensors of which each process may hold a part (torch's DTensor), and plain ones, alike."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def local(value: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor, in shared memory; any other tensor as it is."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Tensor) -> Tensor:
    """Return a sharded tensor brought together, by all processes at the same time; any other tensor as it
    is.
    """
    return value.full_tensor() if isinstance(value, DTensor) else value


def split_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a copy of a whole tensor, which every process has, in the layout and on the device of `like`.

    The layout in memory too: AdamW's fused kernel takes weights and moments to lie in one order.
    """
    if not isinstance(like, DTensor):
        return torch.empty_like(like, requires_grad=False).copy_(value)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
