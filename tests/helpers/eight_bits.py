"""Stands in for bitsandbytes, with the names and the layout of what its AdamW keeps of a parameter."""

import sys
from types import ModuleType

import pytest
import torch


class AdamW8bit(torch.optim.Optimizer):
    """Adam whose moments are tables' places in 8 bits, scaled by the greatest of each."""

    def __init__(self, parameters: list[torch.Tensor], **settings: object) -> None:
        super().__init__(parameters, settings)
        self.name2qmap: dict[str, torch.Tensor] = {}

    def fill_qmap(self) -> None:
        self.name2qmap = {"dynamic": torch.linspace(-1, 1, 256), "udynamic": torch.linspace(0, 1, 256)}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    self.fill_qmap()
                    state["step"] = 0
                    for number, table in ((1, "dynamic"), (2, "udynamic")):
                        state[f"state{number}"] = torch.zeros_like(parameter, dtype=torch.uint8)
                        state[f"qmap{number}"] = self.name2qmap[table]
                        state[f"absmax{number}"] = torch.zeros(1)
                state["step"] += 1
                moments = []
                for number, power, beta in ((1, 1, group["betas"][0]), (2, 2, group["betas"][1])):
                    table = state[f"qmap{number}"]
                    before = table[state[f"state{number}"].long()] * state[f"absmax{number}"]
                    moment = beta * before + (1 - beta) * parameter.grad**power
                    state[f"absmax{number}"] = moment.abs().max().view(1)
                    places = torch.bucketize(moment / state[f"absmax{number}"], table)
                    state[f"state{number}"] = places.clamp(max=255).to(torch.uint8)
                    moments.append(moment / (1 - beta ** state["step"]))
                parameter -= group["lr"] * moments[0] / (moments[1].sqrt() + 1e-8)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put it in the place of the package."""
    package, optim = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
    optim.AdamW8bit = AdamW8bit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)
