"""What a run says of itself, against sums by hand."""

from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import Tensor

from jedi_diffusion.train.plan import SetPlan
from jedi_diffusion.train.tally import LARGEST, Tally, memory_gib, peak, peak_of
from jedi_diffusion.trainer.processes import Processes


class Two(Processes):
    """Two processes that count the same."""

    count = 2

    def sum(self, values: Tensor) -> Tensor:
        return 2 * values


def micro(*sets: tuple[int, tuple[bool, ...]]) -> SimpleNamespace:
    """Sets by source and which of their pictures are references; picture k weighs 1 + k / 2 in the mean."""
    plans = tuple(SetPlan(0, source, flags, flags, 0) for source, flags in sets)
    count = sum(map(len, plans))
    weight = (1 + torch.arange(count) / 2).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return SimpleNamespace(sets=plans, draw=SimpleNamespace(weight=weight))


def test_losses_are_means_by_source_role_and_set_size() -> None:
    tally = Tally(["dogs", "cats", "none"], Processes("cpu"))
    many = (False,) * (LARGEST + 3)
    tally.add(micro((1, (True, False)), (0, (False,))), torch.tensor([3.0, 5.0, 8.0]))  # weights 1, 1.5, 2
    tally.add(micro((0, many)), torch.ones(len(many)))
    tally.add(micro((0, (False,))), torch.tensor([torch.nan]), sound=False)
    weight = sum(1 + k / 2 for k in range(len(many)))
    row = tally.close(2.0)
    assert row["loss"] == pytest.approx((16 + len(many)) / (4.5 + weight))
    assert row["loss_by_source"] == pytest.approx({"dogs": (8 + len(many)) / (2 + weight), "cats": 8 / 2.5})
    assert row["loss_by_role"] == pytest.approx({"target": (13 + len(many)) / (3.5 + weight), "reference": 3})
    assert row["loss_by_set_size"] == pytest.approx({1: 4, 2: 8 / 2.5, LARGEST: len(many) / weight})
    assert row["pictures_per_second"] == (3 + len(many) + 1) / 2
    assert tally.close(3.0)["loss"] is None


@pytest.mark.parametrize("most", [None, 8e12])
def test_speed_is_of_the_time_since_the_last_row(most: float | None) -> None:
    tally = Tally(["dogs"], Two("cpu"), most)
    for end, operations in ((10.0, 1e12), (14.0, 6e12), (14.5, 2e12), (15.5, 0.0)):
        if operations:
            tally.add(micro((0, (False, False))), torch.tensor([1.0, 4.0]))
            tally.count(operations / 2)
            tally.count(operations / 2)
            tally.count_waiting(0.5)
            tally.count_waiting(0.25)
        row = tally.close(end)
        elapsed = {10.0: 10.0, 14.0: 4.0, 14.5: 0.5, 15.5: 1.0}[end]
        speed = operations / elapsed / 2
        assert row["loss"] == (2.0 if operations else None)
        assert row["pictures_per_second"] == (round(4 / elapsed, 2) if operations else 0)
        assert row["tflops_per_device"] == pytest.approx(speed / 1e12)
        assert row["mfu"] == (None if most is None else round(speed / most, 4))
        assert row["waiting"] == (round(0.75 / elapsed, 4) if operations else 0)
    assert row["memory_gib"] == round(memory_gib(torch.device("cpu")), 2)
    most = memory_gib(torch.device("cpu")) * 2**30
    assert 0.9 * psutil.Process().memory_info().rss < most < psutil.virtual_memory().total


def test_a_row_at_once_divides_by_no_zero() -> None:
    tally = Tally(["dogs"], Processes("cpu"))
    tally.add(micro((0, (False,))), torch.tensor([1.0]))
    assert tally.close(0.0)["loss"] == 1


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", None),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA L4", 121),
        ("nvidia l4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla K80", None),
    ],
)
def test_devices_are_known_by_their_names(name: str, tera: float | None) -> None:
    assert peak_of(name) == (None if tera is None else tera * 1e12)


def test_a_cpu_has_no_known_peak() -> None:
    assert peak(torch.device("cpu"), "bfloat16") is None


def test_a_gpu_is_known_by_its_own_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    second = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", {second: "NVIDIA A100-SXM4-80GB"}.__getitem__)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {second: 3 * 2**30}.__getitem__)
    assert (peak(second, "bfloat16"), peak(second, "float32")) == (312e12, None)
    assert memory_gib(second) == 3
