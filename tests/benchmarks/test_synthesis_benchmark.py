"""benchmarks/synthesis.py at tiny size: its figures are there, the last line is the JSON that others read."""

import json
import runpy
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "synthesis.py"


def test_prints_its_figures(capsys, monkeypatch) -> None:
    words = ["--sets", "8", "--collage-size", "128", "--only", "own_cost,memory_growth_mb"]
    monkeypatch.setattr(sys, "argv", ["synthesis.py", *words])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures.keys() == {"own_cost", "memory_growth_mb"}
    assert 0 < figures["own_cost"] < 0.5
    rows = {
        line.split()[0]: line.split()[1:] for line in lines if line.startswith(("generator", "captioner"))
    }
    assert rows["generator"][0] == "8"
    assert rows["captioner"][0] == "32"
