"""What the tests of the documentation share: names, commands and options that a text gives must exist."""

import importlib
import inspect
import re
from typing import Any, get_args

import pytest
import tyro

from jedi_diffusion.cli import find_command
from jedi_diffusion.cli.commands import COMMANDS
from jedi_diffusion.options import Settings
from jedi_diffusion.recipes import Command, find_recipe


def resolve(name: str) -> object:
    """The object at a dotted name below the library, or of another package: a module, or what is in one."""
    parts = name.split(".")
    if parts[0] not in ("experiments", "jedi_showroom", "jedi_toybox"):
        parts = ["jedi_diffusion", *parts]
    found: object = importlib.import_module(parts[0])
    for depth, part in enumerate(parts[1:], start=2):
        try:
            found = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            found = getattr(found, part)
    return found


class ParsedError(Exception):
    """Raised in the place of what a command does after its options are read."""


def parse_call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """That a command (without its first word, `jedi`) reads its options without a fault."""
    parse = tyro.cli

    def only_parse(*given: Any, **settings: Any) -> None:
        parse(*given, **settings)
        raise ParsedError

    command, rest = find_command(words)
    run = importlib.import_module(f"jedi_diffusion.cli.{COMMANDS[command].module}").run
    monkeypatch.setattr("tyro.cli", only_parse)
    with pytest.raises(ParsedError):
        run(rest)
    monkeypatch.undo()


def check_call(words: list[str]) -> None:
    """That a command (without its first word, `jedi`) exists, with every option and recipe given with it."""
    command, rest = find_command(words)
    takes = command.split()[0]
    others = ("evaluate score", "evaluate places", "synthesize report")
    if takes in get_args(Command) and command not in others:
        assert not rest or rest[0].isupper() or find_recipe(rest[0], takes)
    name = "options" if command == "generate" else COMMANDS[command].module
    module = importlib.import_module(f"jedi_diffusion.cli.{name}")
    models = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Settings)]
    fields = {field for each in models for field in each.model_fields}
    for word in rest:
        if word.startswith("--"):
            field = {"--from": "from_"}.get(word, word[2:].replace("-", "_"))
            is_written = re.search(rf"^    {field}: ", inspect.getsource(module), re.MULTILINE)
            assert field in fields or is_written, f"jedi {command} has no {word}"
