"""Make the paper's tables: `python -m experiments.paper_tables full --out runs/paper-tables`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments.paper_tables.estimate import estimate
from experiments.paper_tables.ordering import need_scipy
from experiments.paper_tables.plan import Plan
from experiments.paper_tables.recipe import RECIPES, PaperRecipe
from experiments.paper_tables.work import Work
from jedi_diffusion import devices, models
from jedi_diffusion.cli import guarded, show_notices
from jedi_diffusion.files import make_folder
from jedi_diffusion.train.config import checked, for_device, read_yaml

PROGRAM = "python -m experiments.paper_tables"


@dataclass(frozen=True)
class TablesOptions:
    """Train the methods that the paper compares, draw, score and time them, and write one page.

    Every training, pool and cell is made once; started again, the command makes what is missing. Writes
    tables.html, tables.json and tables.md.
    """

    recipe: tyro.conf.Positional[str]
    """`full`, `quick`, or a YAML file."""
    out: str
    """Folder for everything that is made."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change a key of the recipe: training.steps=10. May be given several times."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    dry_run: bool = False
    """Print the resolved recipe and what it will take, then stop."""


def run(arguments: list[str]) -> None:
    """Make what is missing, then the page. Raises JeDiError."""
    given = tyro.cli(TablesOptions, args=arguments, prog=PROGRAM)
    show_notices()
    device = devices.pick_device(given.device)
    path = RECIPES.get(given.recipe, Path(given.recipe))
    raw = for_device(read_yaml(path, given.set), "cuda" if device.type == "cuda" else "cpu")
    recipe = checked(PaperRecipe, raw, path)
    print(json.dumps(recipe.model_dump(mode="json"), indent=2))
    plan = Plan(recipe)
    print(estimate(plan).describe(plan))
    need_scipy()
    if not given.dry_run:
        models.quiet_libraries()
        files = Work(recipe, plan, make_folder(given.out), device).run()
        print(f"Report: {files[0]}\nNumbers: {files[1]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with these arguments (default: those of the process) and return the exit status, as `jedi` does."""
    return guarded(list(sys.argv[1:] if arguments is None else arguments), run)


if __name__ == "__main__":
    sys.exit(main())
