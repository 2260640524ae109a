"""benchmarks/scoring.py on few small pictures: both scorings run, and the last line is the JSON."""

import json
import runpy
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "scoring.py"


def test_prints_both_scorings_and_their_figures(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scoring.py", "--pictures", "100", "--size", "32"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures.keys() == {"pictures_per_s", "cached_speedup"}
    assert all(value > 0 for value in figures.values())
    assert lines[0].startswith("100 pictures of 32x32")
    assert [line.split("  ")[0] for line in lines[1:3]] == ["cold files", "from the cache"]
