"""The processes that a training runs on: this one alone, or those of accelerate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.amp.grad_scaler import GradScaler


class Processes:
    """This process alone, on one device."""

    count = 1
    main = True
    scaler: GradScaler | None = None
    """Scales float16's losses, and leaves out steps whose gradient is not finite by itself."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)

    def share(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, sharded: bool
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return both as they average gradients over the processes; a sharded network does so by itself."""
        return network, optimizer

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to those that the parameters have."""
        loss.backward()

    def unshared(self, network: nn.Module) -> AbstractContextManager[None]:
        """Inside, gradients stay with this process: more of the step's come."""
        return nullcontext()

    def clip(self, parameters: Iterable[Tensor], limit: float) -> Tensor:
        """Scale the gradients down to a norm of `limit`; returns the norm from before."""
        return nn.utils.clip_grad_norm_(parameters, limit)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the processes, on each of them."""
        return values

    def wait(self) -> None:
        """Wait for the other processes."""

    def track(self, values: Mapping[str, float], step: int) -> None:
        """Give numbers to the trackers, where there are any."""


class Accelerated(Processes):
    """Those that accelerate knows of."""

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__(accelerator.device)
        self.accelerator = accelerator
        self.count, self.main = accelerator.num_processes, accelerator.is_main_process
        self.scaler = accelerator.scaler

    def share(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, sharded: bool
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        prepare = self.accelerator.prepare
        return (network if sharded else prepare(network)), prepare(optimizer)

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def unshared(self, network: nn.Module) -> AbstractContextManager[None]:
        inside: AbstractContextManager[None] = self.accelerator.no_sync(network)
        return inside

    def clip(self, parameters: Iterable[Tensor], limit: float) -> Tensor:
        norm: Tensor = self.accelerator.clip_grad_norm_([*parameters], limit)
        return norm

    def sum(self, values: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(values, reduction="sum")
        return total

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def track(self, values: Mapping[str, float], step: int) -> None:
        self.accelerator.log(dict(values), step=step)
