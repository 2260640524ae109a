"""benchmarks/masks.py on a tiny model: both ways run, and the last line is the JSON that others read."""

import json
import runpy
import sys
from pathlib import Path

from tests.helpers.small_pipelines import save_joint

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "masks.py"


def test_prints_scores_of_both_ways_and_what_masks_keep(tmp_path, capsys, monkeypatch) -> None:
    model = save_joint(tmp_path / "model")
    words = ["--model", model, "--pairs", 2, "--steps", 1, "--references", 2, "--size", 64]
    monkeypatch.setattr(sys, "argv", ["masks.py", *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures.keys() == {"identity_gain", "kept", "seconds_over_whole"}
    assert 0.1 < figures["kept"] < 0.9
    assert [line.split()[0] for line in lines if "references " in line][-2:] == ["whole", "masked"]
