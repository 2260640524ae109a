"""What every test needs: one thread a worker, no downloads, and the real photos where they are at hand."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch at import: test workers share the cores
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def dreambench() -> Path:
    """The DreamBooth photos, one folder a subject; tests that need them are skipped where they are absent."""
    folder = ROOT.parent / "shared" / "dreambench" / "dataset"
    if not folder.is_dir():
        pytest.skip(f"no DreamBooth photos in {folder}")
    return folder
