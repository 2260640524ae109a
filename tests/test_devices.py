"""Devices, number formats, batches, and shortage of memory."""

import pytest
import torch

from jedi_diffusion import devices
from jedi_diffusion.devices import in_batches, memory_errors, pick_device, pick_dtype
from jedi_diffusion.errors import ModelError, UsageError

CPU = torch.device("cpu")


def test_devices_that_are_not_there_are_refused():
    assert pick_device("cpu") == CPU
    for name in (f"cuda:{torch.cuda.device_count()}", "cpu:1", "xpu"):
        with pytest.raises(UsageError, match=f"no device {name} that torch can use"):
            pick_device(name)
    with pytest.raises(UsageError, match="no device called 'gpu'; write cpu, cuda"):
        pick_device("gpu")


def test_number_formats_follow_the_device(monkeypatch):
    assert pick_dtype("auto", CPU) == torch.float32
    assert pick_dtype("float16", CPU) == torch.float16
    card = torch.device("cuda")
    for multiplies in (True, False):
        monkeypatch.setattr(devices, "multiplies_bfloat16", lambda kind, found=multiplies: found)
        assert pick_dtype("auto", card, "float16") == torch.float16
        assert pick_dtype("auto", card) == (torch.bfloat16 if multiplies else torch.float16)
        assert pick_dtype("float32", card) == torch.float32


@pytest.mark.parametrize(
    ("asked", "multiplies", "expected"),
    [
        ("float32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_products_are_of_the_precision_that_is_asked_for_or_that_the_hardware_has(
    asked: devices.Precision, multiplies: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "multiplies_bfloat16", lambda kind: multiplies)
    with devices.autocast(asked, "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_shortage_of_memory_is_one_sentence():
    said = "memory of cpu is too small for mine in batches of 8: take a smaller"
    with pytest.raises(ModelError, match=said), memory_errors("mine", CPU, 8):
        torch.empty(2**59)
    with pytest.raises(ModelError, match="too small"), memory_errors("mine", CPU, 8):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="something else"), memory_errors("mine", CPU, 8):
        raise RuntimeError("something else")


def test_batches_hold_equal_keys_and_keep_the_order():
    seen = []

    def work(places):
        seen.append(places)
        return [place * 10 for place in places]

    assert in_batches("aabab", 2, work) == [0, 10, 20, 30, 40]
    assert seen == [[0, 1], [3], [2, 4]]
    assert in_batches([], 2, work) == []
