"""benchmarks/training.py at its smallest: it runs, and the last line is the JSON that others read."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_prints_all_its_figures(capsys, monkeypatch) -> None:
    words = ["--model", "tiny", "--latents", 8, "--repetitions", 1, "--saves", 1, "--dtype", "float32"]
    words += ["--workers", 0, "--sets", 2, "--steps", 4]
    monkeypatch.setattr(sys, "argv", ["training.py", *map(str, words)])
    monkeypatch.syspath_prepend(BENCHMARKS)
    try:
        runpy.run_path(str(BENCHMARKS / "training.py"), run_name="__main__")
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures.keys() == {
        "worst_time_over_flops",
        "mixed_over_uniform",
        "precomputed_speedup",
        "state_overhead",
        "loader_over_training",
    }
    assert all(value > 0 for value in figures.values())
    assert figures["state_overhead"] < 1
    mixed, uniform = (
        next(line.split() for line in lines if line.startswith(n)) for n in ("mixed ", "sets of 3")
    )
    assert float(mixed[-2]) == pytest.approx(float(uniform[-2]), rel=0.1), "about as many operations"
