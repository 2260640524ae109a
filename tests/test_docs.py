"""README and guide: commands, options, imports, files and links exist, and the Python is Python."""

import ast
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from jedi_toybox import world
from tests.helpers.doc_checks import check_call, parse_call, resolve
from tests.helpers.newcomer import blocks_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "integrations" / "comfyui" / "README.md",
]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"(?:^|`)(?:\.venv/bin/)?jedi ([a-z][^`\n]*)", re.MULTILINE)


def text_of(page: Path) -> str:
    """The page with long commands on one line, and without comments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_commands_and_their_options_exist(page: Path) -> None:
    for call in CALL.findall(PYTHON.sub("", text_of(page))):
        check_call(shlex.split(call, comments=True))


def test_commands_of_blocks_are_whole(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own parser takes every line of a block as it stands; what it does is test_guides.py's."""
    for line in (line for block in blocks_of(page) if block.kind == "shell" for line in block.lines):
        words = [word for word in shlex.split(line) if word != "&" and not word.startswith("$")]
        if "jedi" in (word.rpartition("/")[2] for word in words):
            first = next(place for place, word in enumerate(words) if word.rpartition("/")[2] == "jedi")
            parse_call(words[first + 1 :], monkeypatch)


def test_what_is_installed_is_there(page: Path) -> None:
    """The package is on no index: it is installed from a checkout or a wheel, with extras that it has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for what, extras in re.findall(r"pip\s+install (?:-e )?'?([^\s'\[]+)\[?([^\]'\s]*)", text_of(page)):
        assert what == "." or what.endswith(".whl")
        assert set(filter(None, extras.split(","))) <= project["optional-dependencies"].keys()


def test_prompts_for_the_bundled_model_are_in_its_words(page: Path) -> None:
    for call in CALL.findall(PYTHON.sub("", text_of(page))):
        words = shlex.split(call, comments=True)
        if words[0] == "generate" and "--model" not in words:
            prompts = [after for word, after in pairwise(words) if word in ("--prompt", "--reference-prompt")]
            assert set(re.findall(r"\w+", " ".join(prompts))) <= set(world.vocabulary())


def test_python_parses_and_its_imports_exist(page: Path) -> None:
    for block in PYTHON.findall(text_of(page)):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jedi_diffusion"):
                home = node.module.removeprefix("jedi_diffusion").removeprefix(".")
                for alias in node.names:
                    assert resolve(".".join(filter(None, (home, alias.name)))) is not None


def test_links_and_files_exist(page: Path) -> None:
    text = text_of(page)
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(#[^)]*)?\)", text):
        file = page.parent / target if target else page
        assert file.is_file(), target
        heads = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor[1:] in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in heads}
    for name in re.findall(r"(?:benchmarks|tools)/[\w./]*\w", text):
        assert (ROOT / name).is_file(), name
