"""The script that compares demos of two commits: what counts as a difference."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "same_pictures.py"
COMMIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--all", "-m", "a"]


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("same_pictures", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path: Path, tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose `demo` writes one file; its second commit writes another byte."""
    root = tmp_path / "root"
    package = root / "src" / "jedi_diffusion"
    package.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    program = "import sys, pathlib\nout = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\nout.mkdir()\n"
    (package / "__init__.py").touch()
    for text in ("one", "two"):
        (package / "__main__.py").write_text(program + f"(out / 'demo.png').write_text('{text}')\n")
        subprocess.run(["git", "add", "."], cwd=root, check=True)
        subprocess.run(COMMIT, cwd=root, check=True)
    monkeypatch.setattr(tool, "ROOT", root)
    return root


def test_demos_of_two_commits_are_compared(
    tool: ModuleType, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["HEAD~1", "--new", "HEAD", "--steps", "2"]) == 1
    assert capsys.readouterr().out == "different: demo.png\n"
    assert tool.main(["HEAD", "--steps", "2"]) == 0
    assert capsys.readouterr().out == "all 1 files are equal byte for byte\n"
    told = subprocess.run(
        ["git", "worktree", "list"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert len(told.stdout.splitlines()) == 1


def test_a_file_of_one_side_only_is_a_difference(tool: ModuleType, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        (folder / "more").mkdir(parents=True)
        (folder / "demo.png").write_bytes(b"a")
    assert tool.differences(old, new) == []
    (new / "more" / "b.png").write_bytes(b"b")
    assert tool.differences(old, new) == tool.differences(new, old) == ["more/b.png"]
