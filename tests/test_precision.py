"""The number format of a step: what is asked for, and what the hardware multiplies."""

import pytest
import torch

from jedi_diffusion import precision
from jedi_diffusion.precision import autocast


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
    asked: precision.Precision, multiplies: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda kind: multiplies)
    with autocast(asked, "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
