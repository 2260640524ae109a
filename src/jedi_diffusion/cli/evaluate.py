"""`jedi evaluate`: generates with the methods of a recipe, scores them, and writes the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jedi_diffusion import devices
from jedi_diffusion.cli import show_notices
from jedi_diffusion.cli.evaluate_score import print_scores
from jedi_diffusion.errors import UsageError
from jedi_diffusion.evaluation import judging
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.recipes import find_recipe

if TYPE_CHECKING:
    import torch

    from jedi_diffusion.evaluation.cases import EvaluationSet
    from jedi_diffusion.methods.recipe import EvaluationRecipe
    from jedi_diffusion.methods.settings import MethodSettings

MOVED = (
    "The paper's tables have left the package; in a checkout of the repository, "
    "`python -m experiments.paper_tables {}` makes them."
)


@dataclass(frozen=True)
class EvaluateOptions:
    """Compare methods by a recipe: pictures of every method for every case, scores, and one page.

    Started again with the same folder, it goes on where it stopped; each picture is made once. Writes
    scores.json, scores.csv, scores.md, scores.tex and report.html. To score pictures that exist, see
    `jedi evaluate score --help`.
    """

    recipe: tyro.conf.Positional[str]
    """A YAML file, or the name of a recipe that comes with the package (`jedi recipes`)."""
    out: str
    """Folder for pictures, features and results."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change a key of the recipe: set.subjects=5. May be given several times."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    dry_run: bool = False
    """Print the resolved recipe and the number of pictures, then stop."""


def run(arguments: list[str]) -> None:
    """Generate what is missing, score everything, write. Raises JeDiError."""
    given = tyro.cli(EvaluateOptions, args=arguments, prog="jedi evaluate")
    show_notices()
    from jedi_diffusion.evaluation.layout import find_pictures
    from jedi_diffusion.evaluation.outputs import write_results
    from jedi_diffusion.methods.recipe import EvaluationRecipe
    from jedi_diffusion.train.config import checked, for_device, read_yaml

    device = devices.pick_device(given.device)
    if given.recipe in ("paper_tables", "paper_tables_quick"):  # shipped under these names once
        raise UsageError(MOVED.format("quick" if given.recipe.endswith("quick") else "full"))
    path = find_recipe(given.recipe, "evaluate")
    raw = for_device(read_yaml(path, given.set), "cuda" if device.type == "cuda" else "cpu")
    if "tables" in raw:
        raise UsageError(MOVED.format(path))
    recipe = checked(EvaluationRecipe, raw, path)
    resolved = json.dumps(recipe.model_dump(mode="json"), indent=2)
    print(resolved)
    for method in recipe.methods:
        method.check()
    if given.dry_run:
        return
    out = make_folder(given.out)
    write_file(out / "recipe.json", resolved.encode())
    wanted = judging.open_recipe_set(recipe, out, str(device))
    print(f"{len(wanted.cases)} pictures for each of {len(recipe.methods)} methods")
    scorer = judging.open_scorer(recipe, wanted, out, str(device))
    for method in recipe.methods:
        generate_with(method, recipe, wanted, out, device)
    found = {method.name: find_pictures(pictures_of(method, out), wanted) for method in recipe.methods}
    results = scorer.score(found)
    files = write_results(out, results, recipe.model_dump(mode="json"))
    print_scores(results)
    print(f"Report: {files[-1]}")


def generate_with(
    method: MethodSettings, recipe: EvaluationRecipe, wanted: EvaluationSet, out: Path, device: torch.device
) -> None:
    """Make the method's pictures that are missing; its model is loaded only where there are any."""
    from jedi_diffusion.evaluation.generate import generate, open_method_folder, pending

    record = {"method": method.model_dump(mode="json"), "set": wanted.settings}
    folder = open_method_folder(pictures_of(method, out), record)
    fits = out / "fits" / method.name
    if pending(wanted, folder):
        generate(wanted, method.build(wanted, device, fits), folder, recipe.batch)
    remark = method.remark(fits)
    if remark is not None:
        print(remark)


def pictures_of(method: MethodSettings, out: Path) -> Path:
    return out / "pictures" / method.name
