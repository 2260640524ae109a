"""The benchmark of the server runs, on a tiny model, and its last line is what it promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "serving.py"


@pytest.mark.slow
def test_last_line(tmp_path: Path) -> None:
    from tests.helpers.small_pipelines import save_joint

    words = ["--model", str(save_joint(tmp_path / "joint")), "--steps", "2", "--seconds", "1"]
    words += ["--overload", "2", "--repetitions", "1"]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.keys() == {"overload_failures", "memory_growth_mb", "batch_speedup"}
    assert result["overload_failures"] == 0
    assert result["batch_speedup"] > 0
