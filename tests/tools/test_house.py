"""The script that measures the code base: on a small tree written here, and on this checkout."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"

CORE = '''\
"""Names Any, and a UNet, in words only."""

from typing import (
    Any,
    Protocol,
)

from diffusers import UNet2DConditionModel


def step(unet: Any, more: "Any") -> Any:  # Any
    """Any."""
    return unet(more)
'''
OTHER = (
    "from jedi_diffusion.core import step\n\nCOUNT = 3\n\n\ndef run(noise):\n    return step(abs, noise)\n"
)


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", TOOLS / "house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    package = tmp_path / "src" / "jedi_diffusion"
    files = {
        "core.py": CORE,
        "other.py": OTHER,
        "toybox/world.py": "def betas(time_ids): ...\n",
        "paper/p.py": "",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return tmp_path


def test_counts_of_a_small_tree(house: ModuleType, tree: Path) -> None:
    library, every = (house.total(files) for files in house.sources(tree).values())
    lines = len(CORE.splitlines()) + len(OTHER.splitlines())
    assert library == house.Size(files=2, lines=lines, imports=6, any_lines=1, unet_imports=1, facts=1)
    assert every == house.Size(files=4, lines=lines + 1, imports=6, any_lines=1, unet_imports=1, facts=2)


def test_files_are_crossed_by_calls_not_by_imports(house: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text("def now(): return 1\n\nNOW = now()\n\n\nclass Empty: ...\n")
    (tmp_path / "late.py").write_text("import early\n\n\ndef use(): return [early.NOW for _ in range(2)]\n")

    def call() -> object:
        spec = importlib.util.spec_from_file_location("late", tmp_path / "late.py")
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(tmp_path))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(tmp_path))
        return module.use()

    assert house.entered(call, tmp_path) == [tmp_path / "late.py"]


@pytest.mark.slow
def test_figures_of_this_checkout() -> None:
    done = subprocess.run(
        [sys.executable, TOOLS / "house.py", "--files"], capture_output=True, text=True, check=True
    )
    plain = done.stdout.replace(",", "")
    shown = {line[:36].strip(): line[36:].split() for line in plain.splitlines()}
    files, of_all = map(int, shown["files"])
    assert 50 < files < of_all
    lines = int(shown["lines"][0])
    assert 50 * files < lines
    assert 0 < int(shown["import lines"][0]) < lines / 5
    crossed = r"one (.+) crosses (\d+) files of (\d+) lines \d+ of which name Any\n((?:  .+\n)+)"
    told = re.findall(crossed, plain)
    (pipe, pipe_files, _, of_pipe), (generate, generate_files, _, of_generate) = told
    assert (pipe, generate) == ("pipe()", "jedi generate")
    assert 3 < int(pipe_files) < int(generate_files)
    assert "jedi_diffusion/pipeline.py" in of_pipe
    assert "jedi_diffusion/cli/generate.py" in of_generate
    assert "cli/" not in of_pipe
