"""Parameters of a backbone exchanged for copies, or added by peft, and put back exactly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.randomness import seeded


@contextmanager
def copies(module: nn.Module, pattern: str) -> Iterator[dict[str, nn.Parameter]]:
    """Meanwhile the parameters whose whole names match are copies, by name; then the very originals again."""
    chosen = {name: each for name, each in module.named_parameters() if re.fullmatch(pattern, name)}
    fresh = {name: nn.Parameter(each.detach().clone()) for name, each in chosen.items()}
    try:
        for name, each in fresh.items():
            _put(module, name, each)
        yield fresh
    finally:
        for name, each in chosen.items():
            _put(module, name, each)


def _put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    home, _, last = name.rpartition(".")
    setattr(module.get_submodule(home), last, parameter)


@contextmanager
def adapters(module: nn.Module, config: Any, random: torch.Generator) -> Iterator[dict[str, nn.Parameter]]:
    """Meanwhile peft's adapters of this config are on the module; their parameters by name.

    Raises ModelError without peft, UsageError for a module that carries adapters already.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    if any(isinstance(each, BaseTunerLayer) for each in module.modules()):
        raise UsageError("The model carries adapters already; fuse or unload them first.")
    before = {id(each) for each in module.parameters()}
    with seeded(int(torch.randint(2**62, (), generator=random))):  # peft draws from torch's global state
        inject_adapter_in_model(config, module)
    try:
        yield {name: each for name, each in module.named_parameters() if id(each) not in before}
    finally:
        for name, each in list(module.named_modules()):
            if isinstance(each, BaseTunerLayer):
                module.set_submodule(name, each.get_base_layer())
        del module.peft_config


def need_peft() -> None:
    """Raises ModelError with the way to install peft."""
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise ModelError("This method needs peft: pip install 'jedi-diffusion[train]'.")
