"""How long a recipe takes, by counting: pictures trained on, and pictures through the network when sampling.

Rendering, scoring and compiling are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from experiments.paper_tables.plan import FITTED, Cell, Plan
from jedi_diffusion.train.config import Stage


@dataclass(frozen=True)
class Estimate:
    """Pictures (forward and backward) by training, pictures through the network by what is drawn, hours."""

    trained: int
    fitted: int
    sampled: int
    hours: float

    def describe(self, plan: Plan) -> str:
        return (
            f"{len(plan.trainings)} methods from one backbone and {len(plan.cells)} scored cells: "
            f"{self.trained:,} pictures of training, {self.fitted:,} of fitting, {self.sampled:,} through "
            f"the network in sampling; about {self.hours:.1f} hours at the recipe's rates."
        )


def estimate(plan: Plan) -> Estimate:
    """Count a plan; what tables share is counted once."""
    recipe = plan.recipe
    stages: list[Stage] = [*recipe.backbone.stages] if plan.cells else []
    stages += [recipe.encoder] if any("clip" in training.design for training in plan.trainings) else []
    stages += [recipe.training] * len(plan.trainings)
    trained = sum(stage.steps * stage.batch for stage in stages)
    fitted = sum(_fitted(plan, cell) for cell in plan.cells if cell.method in FITTED)
    sampled = sum(_sampled(plan, cell) for cell in plan.cells)
    rates = recipe.estimate
    hours = ((trained + fitted) / rates.trained + sampled / rates.sampled) / 3600
    return Estimate(trained, fitted, sampled, hours)


def _fitted(plan: Plan, cell: Cell) -> int:
    """Return references and as many prior pictures, at every step for every subject."""
    fit = getattr(plan.recipe.finetuning, cell.method)
    batch = min(fit.fit_batch, cell.references)
    return int(plan.recipe.set.subjects * fit.fit_steps * batch * (2 if fit.prior_pictures else 1))


def _sampled(plan: Plan, cell: Cell) -> int:
    """Return pictures in all branches of guidance, at every step."""
    wanted = plan.recipe.set
    pictures = wanted.subjects * wanted.prompts * wanted.samples
    together = cell.references + 1 if cell.method.startswith("joint") else 1
    null = together if cell.null_set == "joint" else 1
    if cell.mode == "joint":
        branches = null + together
    elif cell.mode == "text_only":
        branches = 2 * together
    else:
        branches = 2 * null + together if cell.mode == "text_first" else null + 2 * together
    return pictures * cell.steps * branches
