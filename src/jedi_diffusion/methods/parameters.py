"""Parameters that a finetuning method adds to a backbone or changes in it, on a copy of its own."""

from __future__ import annotations

import copy
import re
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.randomness import seeded

GLOBAL_STATE = threading.Lock()
"""Held while torch's global random state is another, so that adapters in several threads repeat by seed."""


def private_copy(pipeline: Any) -> Any:
    """Return a pipeline with modules of its own over the same weights, and tokenizers of its own.

    What is added to the copy, exchanged or frozen there leaves the pipeline as it is, also for calls that run
    at the same time. Weights take no memory twice; they must not be changed in place.
    """
    twin = copy.copy(pipeline)
    for name, part in pipeline.components.items():
        memo: dict[int, Tensor] = {}
        if isinstance(part, nn.Module):  # .data counts versions by itself, which autograd compares
            memo = {id(each): nn.Parameter(each.data, requires_grad=False) for each in part.parameters()}
            memo |= {id(each): each for each in part.buffers()}
        if memo or name.startswith("tokenizer"):  # whose calls set their padding
            setattr(twin, name, copy.deepcopy(part, memo))
    return twin


def copies(module: nn.Module, pattern: str) -> dict[str, nn.Parameter]:
    """Put copies in the place of the parameters whose whole names match; return them by name."""
    fresh = {
        name: nn.Parameter(each.detach().clone())
        for name, each in module.named_parameters()
        if re.fullmatch(pattern, name)
    }
    for name, each in fresh.items():
        home, _, last = name.rpartition(".")
        setattr(module.get_submodule(home), last, each)
    return fresh


def adapters(module: nn.Module, config: Any, random: torch.Generator) -> dict[str, nn.Parameter]:
    """Put peft's adapters of this config on the module; return their parameters by name.

    Raises ModelError without peft, UsageError for a module that carries adapters already.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    if any(isinstance(each, BaseTunerLayer) for each in module.modules()):
        raise UsageError("The model carries adapters already; fuse or unload them first.")
    before = {id(each) for each in module.parameters()}
    seed = int(torch.randint(2**62, (), generator=random))
    with GLOBAL_STATE, seeded(seed):  # peft draws from torch's global state
        inject_adapter_in_model(config, module)
    return {name: each for name, each in module.named_parameters() if id(each) not in before}


def compose(module: nn.Module) -> None:
    """Compute the weights that are parametrized, once, in the place of at every step."""
    for each in list(module.modules()):
        if parametrize.is_parametrized(each):
            for name in list(each.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(each, name, leave_parametrized=True)


def need_peft() -> None:
    """Raise ModelError with the way to install peft."""
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise ModelError("This method needs peft: pip install 'jedi-diffusion[train]'.")
