"""FSDP2: a network's weights, with their gradients, averages and moments, split over the processes of a run.

Each process keeps a part of every weight, and has a block's whole weights only while it runs that block.
torch's fully_shard is called directly, not through accelerate's plugin: on CPUs that plugin does nothing and
says nothing (accelerate 1.15 takes it into account for accelerators alone), so no test could run what a GPU
would. Pipelines, checkpoints and results hold whole weights, as without sharding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from jedi_diffusion.backbones import family_of
from jedi_diffusion.trainer.sharded import whole

if TYPE_CHECKING:
    from accelerate import Accelerator


def shard(network: nn.Module, accelerator: Accelerator, precision: torch.dtype) -> None:
    """Split a float32 network over the processes, in place; `precision` is that of whole weights in use.

    Afterwards its parameters are DTensors, and every process has to run it as often as all others do, forward
    and backward. Run it under autocast, unless `precision` is float32.
    """
    units = family_of(network).shard_units
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    policy = MixedPrecisionPolicy(
        param_dtype=None if precision == torch.float32 else precision,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # autocast does
    )
    for module in reversed([*network.modules()]):  # inner ones first, the network itself last
        if isinstance(module, units) or module is network:
            # Also the network's own weights go after a forward: sheets of samples run without a backward, and
            # whole weights that stayed would be stale after the next step.
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def whole_network(network: Any, wanted: bool) -> nn.Module | None:
    """Return a sharded network as a plain one on the CPU, where it is wanted; every process has to call
    this.
    """
    weights = {}
    for name, value in network.state_dict().items():
        together = whole(value)
        if wanted:
            weights[name] = together.cpu()
    if not wanted:
        return None
    with torch.device("meta"):
        plain = family_of(network).fresh(network)
    plain.load_state_dict(weights, assign=True)
    return plain
