"""`jedi synthesize stages`: what every stage does to a few objects, as one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jedi_diffusion.cli import show_notices
from jedi_diffusion.errors import UsageError
from jedi_diffusion.options import check_options
from jedi_diffusion.recipes import find_recipe

MAX_OBJECTS, MAX_COLLAGES = 20, 20


@dataclass(frozen=True)
class StagesOptions:
    """Take a few collages through every stage and show what each did: try models and filters before a run.

    Writes one page that opens offline: prompt, collage, instances with their reasons, cut-outs with their
    affinities, pasted, inpainted and restyled pictures, sets with captions. A run makes the same of them.
    """

    recipe: tyro.conf.Positional[str]
    """A YAML file, or the name of a recipe that comes with the package (`jedi recipes`)."""
    out: str = "stages.html"
    """The page; replaced if it is there."""
    object: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An object of the recipe; the first one if none is given. May be given several times."""
    collages: int = 1
    """Collages of each object."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change a key of the recipe: stages.affinity=0.9. May be given several times."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models compute."""


def run(arguments: list[str]) -> None:
    """Raise JeDiError."""
    given = tyro.cli(StagesOptions, args=arguments, prog="jedi synthesize stages")
    check_options(given, {"collages": (1, MAX_COLLAGES)})
    if len(given.object) > MAX_OBJECTS:
        raise UsageError(f"--object is given {len(given.object)} times, but {MAX_OBJECTS} are the most.")
    show_notices()
    from jedi_diffusion.cli.synthesize import pick_devices
    from jedi_diffusion.files import make_folder, write_file
    from jedi_diffusion.synthesis.models_config import build, check_models
    from jedi_diffusion.synthesis.recipe import load_recipe, objects_of
    from jedi_diffusion.synthesis.report.walk import walk, walk_page
    from jedi_diffusion.trainer.interrupts import stop_requests

    path, out = find_recipe(given.recipe, "synthesize"), Path(given.out)
    recipe = load_recipe(path, given.set)
    items = {item.name: item for item in objects_of(recipe, path)}
    for name in given.object:
        if name not in items:
            raise UsageError(
                f"The recipe {path} has no object {name!r}; give another, or change its objects."
            )
    check_models(recipe.models.plain())
    make_folder(out.parent)  # before the models are loaded
    models = build(recipe.models.plain(), pick_devices(given.device)[0])
    chosen = [items[name] for name in given.object or list(items)[:1]]

    with stop_requests() as stopping:

        def go_on() -> None:
            if stopping():
                raise KeyboardInterrupt("Stopped; nothing was written.")

        walks = [walk(recipe, item, models, given.collages, go_on) for item in chosen]
    write_file(out, walk_page(recipe, walks).encode())
    print(f"Page: {out}")
