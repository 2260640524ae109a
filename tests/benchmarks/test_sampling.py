"""benchmarks/sampling.py on a tiny model: every form runs, and the last line is the JSON that others read."""

import json
import runpy
import sys
from pathlib import Path

from tests.helpers.small_pipelines import save_joint

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "sampling.py"


def test_prints_every_form_and_its_figures(tmp_path, capsys, monkeypatch) -> None:
    model = save_joint(tmp_path / "model")
    words = ["--model", model, "--steps", 2, "--repetitions", 1]
    monkeypatch.setattr(sys, "argv", ["sampling.py", *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures.keys() == {"cached_3_over_plain", "seconds_per_picture"}
    assert all(value > 0 for value in figures.values())
    forms = [line for line in lines if line.startswith(("plain", "joint", "cached"))]
    assert len(forms) == 7
