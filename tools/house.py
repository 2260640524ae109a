"""Print how big the code base is and how much of it one call crosses, to compare commits.

    python tools/house.py [--tree CHECKOUT] [--static]

`--tree` measures another checkout (say, one made by `git worktree add`) with this environment's packages;
`--static` runs nothing. Only files under src/ count. The definitions:

- library: src/jedi_diffusion, in older commits without its `paper` and `toybox`.
- import lines: lines of import statements.
- lines that name Any: lines of code with the name `Any`, without imports, comments and strings.
- files that import a UNet class: an imported name holds "UNet", for typing or at run time.
- files that know a UNet or DDPM fact: their code holds a word of `FACTS`, or one that contains "unet".
- crossed files and lines: files of which a function is entered, and all their lines. What runs while a module
  is imported does not count.

To see that a change keeps the pictures too, use tools/same_pictures.py.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("toybox", "paper")  # packages of jedi_diffusion that are not the library
FACTS = {
    "add_noise",
    "added_cond_kwargs",
    "alphas_cumprod",
    "conv_in",
    "cross_attention_kwargs",
    "down_blocks",
    "get_velocity",
    "init_noise_sigma",
    "mid_block",
    "num_train_timesteps",
    "prediction_type",
    "time_ids",
    "up_blocks",
}
"""Words of a UNet, of SDXL's conditions, or of a scheduler over alphas_cumprod."""


@dataclass(frozen=True)
class Size:
    """Counts of some files."""

    files: int
    lines: int
    imports: int
    any_lines: int
    unet_imports: int
    facts: int


def name_of(node: ast.AST) -> str | None:
    """Return the identifier that a node adds to the code, if it is one."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=name):
            return name
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(name=name):
            return name
    return None


@cache
def size_of(file: Path) -> Size:
    """Count a file's lines and what they name."""
    text = file.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text)))
    found = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name for name in map(name_of, nodes) if name}
    spans = (range(node.lineno, (node.end_lineno or node.lineno) + 1) for node in found)
    return Size(
        files=1,
        lines=len(text.splitlines()),
        imports=len({line for span in spans for line in span}),
        any_lines=len({node.lineno for node in nodes if isinstance(node, ast.Name) and node.id == "Any"}),
        unet_imports=int(any("UNet" in alias.name for node in found for alias in node.names)),
        facts=int(any(name in FACTS or "unet" in name.lower() for name in names)),
    )


def total(files: list[Path]) -> Size:
    """Add up the sizes of files."""
    sizes = [size_of(file) for file in files]
    return Size(**{each.name: sum(getattr(size, each.name) for size in sizes) for each in fields(Size)})


def sources(tree: Path) -> dict[str, list[Path]]:
    """Return the Python files of a checkout: those of the library, and all."""
    package = tree / "src" / "jedi_diffusion"
    every = sorted((tree / "src").rglob("*.py"))
    beside = [package / name for name in BESIDE]
    inside = [file for file in every if file.is_relative_to(package)]
    library = [file for file in inside if not any(file.is_relative_to(each) for each in beside)]
    return {"library": library, "all of src": every}


def entered(call: Callable[[], object], source: Path) -> list[Path]:
    """Return the files below `source` of which `call` enters a function, in any thread that it starts."""
    prefix, seen = str(source) + os.sep, set()

    def importing(frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(prefix):
                return True
            frame = frame.f_back
        return False

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        new = event == "call" and code not in seen and code.co_filename.startswith(prefix)
        if new and not importing(frame):
            seen.add(code)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return sorted({Path(code.co_filename) for code in seen})


def trace(what: str, source: Path) -> list[Path]:
    """Return the files that one call of the bundled model crosses, in this process: "pipe" or "generate"."""
    from PIL import Image

    picture = Image.new("RGB", (64, 64), (200, 30, 30))
    if what == "pipe":
        from jedi_toybox import load_pipeline

        pipe = load_pipeline()
        pipe.set_progress_bar_config(disable=True)
        return entered(lambda: pipe("a mug on a beach", references=[picture], num_inference_steps=2), source)
    from jedi_diffusion.cli import main

    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, "photo.png")
        picture.save(photo)
        words = ["generate", "--reference", str(photo), "--prompt", "a mug on a beach", "--steps", "2"]
        return entered(lambda: main([*words, "--device", "cpu", "--out", str(Path(folder, "out"))]), source)


def crossed(what: str, tree: Path) -> list[Path]:
    """Return what `trace` returns for a checkout, traced in a fresh process."""
    source = tree / "src"
    settings = {**os.environ, "PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--tree", str(tree), "--trace", what]
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stderr}\nTracing {what} in {tree} failed.")
    return [Path(file) for file in json.loads(done.stdout.splitlines()[-1])]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to measure")
    parser.add_argument("--static", action="store_true", help="count, but run nothing")
    parser.add_argument("--files", action="store_true", help="list the crossed files")
    parser.add_argument("--trace", choices=["pipe", "generate"], help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    tree = given.tree.resolve()
    if given.trace:
        print(json.dumps([str(file) for file in trace(given.trace, tree / "src")]))
        return
    counted = {name: total(files) for name, files in sources(tree).items()}
    print(f"{'':36}{'library':>12}{'all of src':>12}")
    titles = {"any_lines": "lines that name Any", "unet_imports": "files that import a UNet class"}
    titles |= {"imports": "import lines", "facts": "files that know a UNet or DDPM fact"}
    for each in fields(Size):
        values = [getattr(size, each.name) for size in counted.values()]
        print(f"{titles.get(each.name, each.name):36}" + "".join(f"{value:12,}" for value in values))
    for what, name in {"pipe": "pipe()", "generate": "jedi generate"}.items() if not given.static else ():
        files = crossed(what, tree)
        lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
        named = total(files).any_lines
        print(f"one {name} crosses {len(files)} files of {lines:,} lines, {named} of which name Any")
        for file in files if given.files else ():
            print(f"  {file.relative_to(tree)}")


if __name__ == "__main__":
    main()
