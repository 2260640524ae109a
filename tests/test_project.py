"""What holds for the project as a whole: import order, start-up time, forbidden packages, the built wheel."""

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
CHAIN = (
    # what any part may use
    *("errors", "devices", "estimates", "files", "options", "parts", "personalizer", "randomness"),
    *(
        "pictures",
        "recipes",
        "visibility",
        "sets",
        "copies",
        "credentials",
        "watermark",
        "provenance",
        "page",
    ),
    # the method, and a pipeline of it
    *("networks", "weights", "vision", "joint", "attention_figure", "inputs", "references"),
    *("backbones", "flops", "adapters", "pipeline", "remembered", "calls", "costs", "trainer"),
    # what earlier versions called these
    *("diffusion", "model", "toybox"),
    # the worlds beside it, and what is done with a pipeline
    *("data", "jedi_toybox", "jedi_showroom", "models"),
    *("train", "synthesis", "evaluation", "choosing", "library", "methods", "app", "cli", "__main__"),
)
LEVELS = {name: level for level, name in enumerate(CHAIN)}
"""A part imports only from those before it: no two are of one level."""


def test_names_of_test_files_are_unique() -> None:
    """Two of one name are one module to pytest, and the second is an error only where both are collected."""
    names = [each.name for each in (ROOT / "tests").rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}


def test_tests_share_by_way_of_helpers_alone() -> None:
    """A bare import of a neighbour depends on how pytest sets the path, and fails anywhere else."""
    files = [file for file in (ROOT / "tests").rglob("*.py") if "fixtures" not in file.parts]
    bare = {file.stem for file in files if file.parent.name != "tests"}
    offenders = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level == 0
        for name in [node.module or ""]
        if name in bare
    ]
    assert not offenders


def imported_modules(file: Path) -> Iterator[str]:
    """Absolute names of everything a file imports, at any depth, for typing alone or at run time."""
    package = file.relative_to(SOURCE).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            home = ".".join((*base, *([node.module] if node.module else [])))
            # `from jedi_diffusion import sets` imports a module, `from jedi_diffusion.sets import X` a name.
            yield from (f"{home}.{alias.name}" for alias in node.names)


def home_of(name: str) -> str:
    """The part of the project that an absolute name belongs to: a world, or what is below the library."""
    parts = name.split(".")
    return parts[1] if parts[0] == "jedi_diffusion" and len(parts) > 1 else parts[0]


def homes(file: Path) -> tuple[str, set[str]]:
    """A file's own part of the project, and the others that it imports from."""
    home = home_of(".".join(file.relative_to(SOURCE).with_suffix("").parts))
    return home, {home_of(name) for name in imported_modules(file)} & LEVELS.keys() - {home}


def sources() -> list[Path]:
    return [
        file for file in sorted(SOURCE.rglob("*.py")) if file != SOURCE / "jedi_diffusion" / "__init__.py"
    ]


def test_every_module_has_a_place_in_the_chain() -> None:
    assert {homes(file)[0] for file in sources()} <= LEVELS.keys()


def test_imports_come_only_from_earlier_parts() -> None:
    offenders = [
        f"{file.relative_to(SOURCE)} imports {name}, which comes after {home}"
        for file in sources()
        for home, imported in [homes(file)]
        for name in sorted(imported)
        if LEVELS[name] > LEVELS[home]
    ]
    assert not offenders


def test_names_from_the_top_level_count_as_their_home() -> None:
    """`from jedi_diffusion import JeDiPipeline` would hide an import of the pipeline from the test above."""
    from jedi_diffusion import _HOMES

    offenders = [
        str(file.relative_to(SOURCE))
        for file in sources()
        for name in imported_modules(file)
        if name.startswith("jedi_diffusion.") and name.count(".") == 1 and name.split(".")[1] in _HOMES
        if not LEVELS[_HOMES[name.split(".")[1]].split(".")[0]] < LEVELS[homes(file)[0]]
    ]
    assert not offenders


def test_torchvision_is_not_importable() -> None:
    assert importlib.util.find_spec("torchvision") is None, "a dependency brings torchvision: drop it"


def test_nothing_installed_requires_torchvision() -> None:
    """Follows the requirements of our distribution, extras included, through what is installed."""
    waiting, seen = {("jedi-diffusion", True)}, set()
    while waiting:
        name, extras = waiting.pop()
        seen.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # an extra that is not installed here
            continue
        for line in requirements:
            if "extra ==" in line and not extras:
                continue
            needed = re.split(r"[\s;<>=!~\[(]", line, maxsplit=1)[0].lower().replace("_", "-")
            assert needed not in {"torchvision", "timm", "open-clip-torch", "lpips"}, (
                f"{name} requires {line}"
            )
            if needed not in seen:
                waiting.add((needed, False))


def test_no_source_imports_torchvision() -> None:
    for file in sources():
        assert "torchvision" not in {name.split(".")[0] for name in imported_modules(file)}, file


def test_constraints_pin_what_the_project_needs() -> None:
    pinned = set(
        re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    pinned = {name.lower().replace("_", "-") for name in pinned}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [line for lines in extras.values() for line in lines]
    for line in [*project["dependencies"], *needed]:
        assert re.split(r"[<>=\[]", line, maxsplit=1)[0].lower().replace("_", "-") in pinned


START = """
import sys
{statement}
heavy = sorted({{"torch", "diffusers", "transformers", "numpy"}} & sys.modules.keys())
print(heavy, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "statement", ["import jedi_diffusion", "from jedi_diffusion.cli import main; main(['--help'])"]
)
def test_start_is_fast_and_light(statement: str) -> None:
    """Processor time, not wall time, and the best of five: other programs run on this machine too."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", START.format(statement=statement)],
            capture_output=True,
            text=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.stderr.strip() == "[]"
    assert min(times) < 0.3


def test_make_knows_its_targets() -> None:
    for target in ("demo", "test", "test-slow", "test-ray", "mutation", "lint"):
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make lint test" in script.read_text(encoding="utf-8")


@pytest.mark.slow
def test_wheel_runs_in_a_clean_environment(tmp_path: Path) -> None:
    """Build the wheel, install it alone through the constraints, and run the demo away from the sources."""

    def run(*command: str | Path) -> str:
        settings = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "clean", with_pip=True)
    binaries = tmp_path / "clean" / "bin"
    run(binaries / "python", "-m", "pip", "install", "-c", ROOT / "constraints.txt", wheel)
    assert "generate" in run(binaries / "jedi", "--help")
    where = json.loads(
        run(binaries / "python", "-c", "import json, jedi_diffusion as j; print(json.dumps(j.__file__))")
    )
    assert Path(where).is_relative_to(tmp_path)
    run(binaries / "jedi", "demo", "--out", tmp_path / "demo", "--steps", "2")
    assert list((tmp_path / "demo").glob("*.png"))
