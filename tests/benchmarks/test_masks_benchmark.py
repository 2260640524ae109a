"""benchmarks/masks.py on a tiny model: both ways run, and the last line is the JSON that others read."""

import json
import runpy
import sys
from pathlib import Path

import pytest

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


def test_counts_what_masks_save(capsys, monkeypatch) -> None:
    """Of three 512 px references the pass that reads them costs the same; what steps read is a quarter."""
    monkeypatch.setattr(sys, "argv", ["masks.py", "--count"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(figures) == 8
    whole, quarter = (figures[f"SD 1.4, 512 px, R = 3, {share}"] for share in ("100%", "25%"))
    assert quarter[2] - 1 == pytest.approx((whole[2] - 1) / 4, abs=0.005)
    assert quarter[1] - quarter[2] == pytest.approx(whole[1] - whole[2], abs=0.01)
    assert quarter[0] < whole[0]
