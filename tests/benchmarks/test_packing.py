"""benchmarks/packing.py: its last line is the JSON that others read, and packing is linear."""

import json
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_packing_takes_no_more_for_a_picture_among_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    opened: list[str] = []
    real = Path.read_bytes

    def counted(path: Path) -> bytes:
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    script = str(ROOT / "benchmarks" / "packing.py")
    monkeypatch.setattr(sys, "argv", [script, "--pictures", "4", "40", "--folder", str(tmp_path)])
    runpy.run_path(script, run_name="__main__")
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["pictures"] == [4, 40]
    assert told.keys() == {"pictures", "seconds", "per_picture_ratio"}
    texts = [name for name in opened if name.endswith(".txt")]
    # Each caption twice: to tell photos from stacked sets, and as a caption.
    assert len(texts) <= 2 * 44
