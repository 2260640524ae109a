"""The dispatcher: help, version, unknown words, exit statuses; and that every listed command exists."""

from importlib import import_module
from types import SimpleNamespace

import pytest

from jedi_diffusion import __version__
from jedi_diffusion.cli import commands, find_command
from jedi_diffusion.errors import OutputError, UsageError
from jedi_diffusion.options import check_options


def test_help_lists_every_command(jedi) -> None:
    for words in ((), ("--help",), ("-h",), ("help",)):
        done = jedi(*words)
        assert done.status == 0
        assert all(name in done.out for name in commands.COMMANDS)


def test_version(jedi) -> None:
    assert jedi("--version").out.strip() == f"jedi-diffusion {__version__}"


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_help(name, jedi) -> None:
    assert callable(import_module(f"jedi_diffusion.cli.{commands.COMMANDS[name].module}").run)
    done = jedi(*name.split(), "--help")
    assert done.status == 0
    assert f"jedi {name}" in done.out


def test_unknown_words(jedi) -> None:
    done = jedi("genrate")
    assert done.status == 2
    assert "Did you mean generate?" in done.err
    assert jedi("xyzzy").status == 2
    assert jedi("generate", "--nope").status == 2
    assert jedi("generate", "--steps", "many").status == 2


def test_the_longest_name_wins(monkeypatch) -> None:
    table = {"toybox": commands.COMMANDS["toybox"], "toybox score": commands.Command("x", "")}
    monkeypatch.setattr("jedi_diffusion.cli.COMMANDS", table)
    assert find_command(["toybox", "score", "--pairs"]) == ("toybox score", ["--pairs"])
    assert find_command(["toybox", "--out"]) == ("toybox", ["--out"])


@pytest.mark.parametrize(
    ("error", "status"), [(OutputError("full"), 1), (UsageError("bad"), 2), (KeyboardInterrupt(), 130)]
)
def test_exit_statuses(error, status, jedi, monkeypatch) -> None:
    def fail(_):
        raise error

    monkeypatch.setattr("jedi_diffusion.cli.demo.run", fail)
    done = jedi("demo")
    assert done.status == status
    assert done.err.strip().startswith("jedi: ")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--prompt", "-a cow"), "write --prompt='-a cow'"),
        (("--reference", "-x.png"), "write --reference=-x.png"),
        (("--prompt", "--a cow"), "write --prompt='--a cow'"),
        (("--prompt", "a cow", "--nope"), None),
        (("--overwrite", "--nope"), None),
    ],
)
def test_a_value_that_begins_with_a_dash_is_told_how_to_be_written(words, hint, jedi) -> None:
    done = jedi("generate", *words)
    assert done.status == 2
    if hint is None:
        assert "write --" not in done.err
    else:
        assert done.err.strip().endswith(hint)


@pytest.mark.parametrize("value", [0, 4, float("nan"), float("inf"), 10**400])
def test_an_option_outside_its_limits_is_named_as_it_is_typed(value) -> None:
    limits = {"seeds": (1, 3), "keep_mb": (1, 3)}
    for inside in (1, 3, None):
        check_options(SimpleNamespace(seeds=2, keep_mb=inside), limits)
    with pytest.raises(UsageError, match=r"--keep-mb is .*, but must lie between 1 and 3"):
        check_options(SimpleNamespace(seeds=2, keep_mb=value), limits)
