"""Recipes: YAML files read into checked models, with single keys changed from the command line."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from jedi_diffusion.errors import RecipeError
from jedi_diffusion.files import read_text
from jedi_diffusion.options import faults

Command = Literal["train", "evaluate", "synthesize"]
CONFIGS = Path(__file__).with_name("configs")
"""The recipes that come with the package: a folder for each command, a YAML file for each recipe."""

Model = TypeVar("Model", bound=BaseModel)


def shipped(command: Command) -> dict[str, Path]:
    """Return the recipes that come with the package for a command, by name."""
    return {path.stem: path for path in sorted((CONFIGS / command).glob("*.yaml"))}


def find_shipped(name: str, command: Command, given: str | None = None) -> Path:
    """Return the recipe `name`, `given` by a user as, of those that come with the package.

    Raises RecipeError.
    """
    found = shipped(command)
    if name not in found:
        raise RecipeError(
            f"There is no recipe {given or name} for `jedi {command}`: give a YAML file, or one of those "
            f"that come with the package: {', '.join(found)}."
        )
    return found[name]


def find_recipe(given: str, command: Command) -> Path:
    """Return the recipe that a user means: a file, or else one that comes with the package. Raises
    RecipeError.

    `toybox`, `toybox.yaml` and `configs/toybox.yaml` are one recipe where no such file exists.
    """
    path = Path(given)
    if path.is_file():
        return path
    bare = len(path.parts) == 1 or path.parts[0] == CONFIGS.name
    return find_shipped(path.stem if bare and path.suffix in ("", ".yaml") else given, command, given)


def summary(path: Path) -> str:
    """Return what a recipe of the package is for: the first sentence of its first line, a comment."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# ").partition(". ")[0].removesuffix(".") + "."


def read_yaml(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Return a recipe as it is written, with `changes` ("training.steps=10") made. Raises RecipeError."""
    try:
        raw = yaml.safe_load(read_text(path, RecipeError))
    except yaml.YAMLError as error:
        raise RecipeError(f"The recipe {path} is not YAML: {error}.") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"The recipe {path} does not fit: it must be a mapping of keys to values.")
    for change in changes:
        _change(raw, change)
    return raw


def _change(raw: dict[str, Any], change: str) -> None:
    """Set one key by its path; the value is YAML, list items are counted from 0."""
    key, equals, value = change.partition("=")
    names = key.split(".")
    place: Any = raw
    try:
        if not equals:
            raise KeyError(key)
        for name in names[:-1]:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        last: Any = int(names[-1]) if isinstance(place, list) else names[-1]
        place[last] = yaml.safe_load(value)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise RecipeError(
            f"--set {change!r} changes nothing in the recipe; write KEY=VALUE, such as training.steps=10."
        ) from error


def has_key(recipe: object, key: str) -> bool:
    """Return whether a recipe, as JSON values, has a key "section.list.0.key", be it None."""
    for name in key.split("."):
        if isinstance(recipe, list) and name.isdecimal() and int(name) < len(recipe):
            recipe = recipe[int(name)]
        elif isinstance(recipe, dict) and name in recipe:
            recipe = recipe[name]
        else:
            return False
    return True


def is_among(key: str, keys: Iterable[str]) -> bool:
    """Return whether a key is one of these, or in a section that is."""
    return any(key == each or key.startswith(f"{each}.") for each in keys)


def checked(kind: type[Model], raw: dict[str, Any], path: Path) -> Model:
    """Return a recipe read by read_yaml as a checked model. Raises RecipeError naming file, key and fault."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"The recipe {path} does not fit: {'; '.join(faults(error))}.") from error
