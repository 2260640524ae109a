"""Moments in 8 bits: a run that is stopped goes on as if it were not."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from jedi_diffusion.errors import UsageError
from jedi_diffusion.trainer.loop import Part, Task, Trainer
from jedi_diffusion.trainer.processes import Processes
from jedi_diffusion.trainer.settings import Every, Schedule, Settings
from jedi_diffusion.trainer.state import checkpoints, read_state
from tests.helpers.eight_bits import stand_in


class Regression(Task):
    """Least squares on random inputs, with as many weights as bitsandbytes takes into 8 bits."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(64, 64, bias=False)

    def parts(self, step: int) -> list[Part]:
        x = torch.randn(16, 64, generator=torch.Generator().manual_seed(step))
        return [lambda network: (network(x) - x).square().mean()]


def trained(folder: Path, steps: int) -> Trainer:
    settings = Settings(
        name="line", schedule=Schedule(0.01), steps=steps, optimizer="adamw8bit", save=Every(steps=5)
    )
    trainer = Trainer(Regression(), settings, Processes("cpu"), folder)
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    "real",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="not installed")
        ),
    ],
)
def test_a_run_with_moments_in_8_bits_goes_on_where_it_was(tmp_path, monkeypatch, real) -> None:
    if not real:
        stand_in(monkeypatch)
    whole = trained(tmp_path / "whole", 20)
    trained(tmp_path / "parts", 10)
    tensors, _ = read_state(checkpoints(tmp_path / "parts" / "state")[-1], "cpu", "optimizer/")
    assert tensors["optimizer/state1/weight"].dtype == torch.uint8
    assert not any("qmap" in name for name in tensors)
    after = trained(tmp_path / "parts", 20)
    assert after.step == 20
    assert torch.equal(after.parameters["weight"], whole.parameters["weight"])
    apart = whole.parameters["weight"].detach() - torch.eye(64)
    assert apart.norm() < (Regression().network.weight - torch.eye(64)).norm()


def test_moments_in_8_bits_need_their_package(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UsageError, match="needs bitsandbytes, which is not installed: pip install"):
        trained(tmp_path, 1)
