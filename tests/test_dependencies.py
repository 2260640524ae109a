"""What pyproject.toml asks for is what the code imports, and its extras need nothing but an index."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
INDIRECT = {
    "aiohttp": "fsspec reads http:// by it",
    "flask": "moto's server of S3 runs on it",
    "flask-cors": "moto's server of S3 runs on it",
    "ipykernel": "nbclient runs notebooks in it",
    "python-multipart": "fastapi reads uploads by it",
    "s3fs": "fsspec reads s3:// by it",
    "types-pyyaml": "mypy reads it",
}
"""Distributions that another package imports when this project asks it to."""
NAMES_OF_MODULES = {  # where they are not the distribution's, which may not be installed here
    "c2pa-python": "c2pa",
    "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
    "scikit-image": "skimage",
}
COMMANDS = {"mutmut": "mutmut", "mypy": "mypy", "pre-commit": "pre-commit", "pytest-xdist": "-n $(WORKERS)"}
COMMANDS |= {"ruff": "ruff"}
"""Of the extra dev: what the Makefile or CONTRIBUTING.md run."""


def names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


@cache
def mentioned_below(folder: str) -> tuple[frozenset[str], frozenset[str]]:
    """Top-level modules that the code below a folder imports, and texts that may be their names."""
    imported, texts = set(), set()
    for file in (ROOT / folder).rglob("*.py"):
        if file == Path(__file__):  # which names packages without using them
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 80:
                texts.add(node.value.partition(".")[0])
    return frozenset(imported), frozenset(texts)


@cache
def modules() -> dict[str, set[str]]:
    """Modules of each distribution: those of the installed one, or its name as one."""
    found: dict[str, set[str]] = {name: {module} for name, module in NAMES_OF_MODULES.items()}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for each in distributions:
            found.setdefault(canonicalize_name(each), set()).add(module)
    return found


def unused(wanted: set[str], *folders: str) -> list[str]:
    """The distributions of which no module is imported, or loaded by its name, below the folders."""
    used = {module for folder in folders for found in mentioned_below(folder) for module in found}
    of = modules()
    return sorted(name for name in wanted if not of.get(name, {name.replace("-", "_")}) & used)


def test_nothing_is_installed_that_no_source_imports() -> None:
    wanted = names(PROJECT["dependencies"]).union(*(names(EXTRAS[name]) for name in EXTRAS.keys() - {"dev"}))
    assert unused(wanted - INDIRECT.keys(), "src", "experiments") == []


def test_nothing_is_installed_for_developers_that_no_test_or_command_uses() -> None:
    commands = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "CONTRIBUTING.md"))
    assert [name for name, command in COMMANDS.items() if command not in commands] == []
    wanted = names(EXTRAS["dev"]) - INDIRECT.keys() - COMMANDS.keys()
    assert unused(wanted, "src", "tests", "benchmarks", "tools") == []


def test_a_dependency_that_nothing_imports_is_found() -> None:
    assert unused({"einops", "torch", "pyyaml"}, "src") == ["einops"]


def test_what_sources_import_is_asked_for_or_comes_with_what_is() -> None:
    """Extras count: the modules that import theirs say what is missing."""
    asked = names(PROJECT["dependencies"]).union(*map(names, EXTRAS.values()))
    brought = set(asked)
    for name in asked:
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # an extra that is not installed here
            continue
        brought |= {canonicalize_name(Requirement(line).name) for line in lines if "extra ==" not in line}
    of = modules()
    known = {module for name in brought for module in of.get(name, {name.replace("-", "_")})}
    own = {"jedi_diffusion", "jedi_toybox", "jedi_showroom", "__future__"}
    assert sorted(mentioned_below("src")[0] - known - own - sys.stdlib_module_names) == []


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_requirements_resolve_from_an_index_alone(extra: str | None) -> None:
    """No URL, no path, no extra of our own."""
    for line in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(line)
        assert requirement.url is None
        assert canonicalize_name(requirement.name) != canonicalize_name(PROJECT["name"])
        assert requirement.specifier, f"{line} has no lower bound"


def test_extras_that_messages_and_guides_name_exist() -> None:
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "src").rglob("*.py")]
    named = {
        name
        for path in texts
        for found in re.findall(r"jedi-diffusion\[([\w,-]+)\]", path.read_text(encoding="utf-8"))
        for name in found.split(",")
    }
    assert named
    assert named <= EXTRAS.keys()


@pytest.mark.slow
def test_the_wheel_asks_for_what_is_declared(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    about = importlib.metadata.PathDistribution(
        zipfile.Path(wheel, f"jedi_diffusion-{PROJECT['version']}.dist-info/")
    )
    assert set(about.metadata.get_all("Provides-Extra") or []) == EXTRAS.keys()
    told = [Requirement(line) for line in about.requires or []]
    for extra, lines in {"": PROJECT["dependencies"], **EXTRAS}.items():
        markers = {"extra": extra}
        found = {each.name for each in told if each.marker and each.marker.evaluate(markers)}
        plain = {each.name for each in told if each.marker is None}
        assert {canonicalize_name(name) for name in (found if extra else plain)} == names(lines), extra
