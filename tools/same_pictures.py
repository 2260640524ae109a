"""Make the bundled model's demo at two commits on this machine and compare every file byte for byte.

    python tools/same_pictures.py OLD [--new NEW] [options of `jedi demo`]

OLD and NEW are commits; without NEW the working tree is compared. Both run with this environment's packages,
so a difference comes from the code alone. Exits with 1 where anything differs. `--subjects 1 --prompts 1
--steps 2` is a quick look; the default is the demo as users see it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def checkout(commit: str | None, folder: Path) -> Iterator[Path]:
    """Yield a worktree of a commit in `folder`, removed afterwards; the working tree for None."""
    if commit is None:
        yield ROOT
        return
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", folder, commit], cwd=ROOT, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def demo(tree: Path, out: Path, options: list[str]) -> None:
    """Run `jedi demo` from the sources of a checkout. Raises CalledProcessError."""
    settings = {**os.environ, "PYTHONPATH": str(tree / "src"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "jedi_diffusion", "demo", "--device", "cpu", "--out", str(out), *options]
    subprocess.run(command, env=settings, cwd=out.parent, check=True)


def differences(old: Path, new: Path) -> list[str]:
    """Return the names of the files below two folders that differ or are in one of them only, sorted."""
    files = [
        {str(path.relative_to(each)): path for path in each.rglob("*") if path.is_file()}
        for each in (old, new)
    ]
    before, after = files
    return sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or before[name].read_bytes() != after[name].read_bytes()
    )


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old", help="a commit")
    parser.add_argument("--new", help="another; the working tree if not given")
    given, options = parser.parse_known_args(words)
    with tempfile.TemporaryDirectory() as home:
        outs = [Path(home, name) for name in ("old", "new")]
        for commit, out in zip((given.old, given.new), outs, strict=True):
            with checkout(commit, out.with_name(f"{out.name}_tree")) as tree:
                demo(tree, out, options)
        found = differences(*outs)
        count = sum(path.is_file() for path in outs[0].rglob("*"))
    print(f"different: {', '.join(found)}" if found else f"all {count} files are equal byte for byte")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
