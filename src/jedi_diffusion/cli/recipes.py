"""`jedi recipes`: lists the recipes that come with the package, or prints one to start from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import get_args

import tyro

from jedi_diffusion.recipes import Command, find_shipped, shipped, summary


@dataclass(frozen=True)
class RecipesOptions:
    """List the recipes that come with the package, or print one.

    `jedi train NAME`, `jedi evaluate NAME` and `jedi synthesize NAME` take them by name, and any YAML file by
    its path. To change more than `--set` does: jedi recipes train sdxl > mine.yaml
    """

    command: tyro.conf.Positional[Command | None] = None
    """List those of this command only."""
    name: tyro.conf.Positional[str | None] = None
    """Print this recipe of the command's."""
    json: bool = False
    """Print the list as JSON: command, name, summary and path of each."""


def run(arguments: list[str]) -> None:
    """Print the list, or a recipe. Raises RecipeError for a name that no recipe of the command has."""
    given = tyro.cli(RecipesOptions, args=arguments, prog="jedi recipes")
    if given.command and given.name:
        print(find_shipped(given.name, given.command).read_text(encoding="utf-8"), end="")
        return
    rows = [
        {"command": command, "name": name, "summary": summary(path), "path": str(path)}
        for command in ([given.command] if given.command else get_args(Command))
        for name, path in shipped(command).items()
    ]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    lines = {f"jedi {row['command']} {row['name']}": row["summary"] for row in rows}
    width = max(map(len, lines)) + 2
    for line, text in lines.items():
        print(f"{line:<{width}}{text}")
