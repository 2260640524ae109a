"""What a run will make and cost, before anything is loaded: pictures, hours of a graphics card, storage.

The counts follow the stages of Algorithm 1 from the recipe's assumptions, which are not the paper's: it gives
neither times nor yields. Of the paper there is the size to compare with, 1.6 million sets (Table 8).
"""

from __future__ import annotations

from dataclasses import dataclass

from jedi_diffusion.synthesis.prompts import PROMPTS_A_REQUEST
from jedi_diffusion.synthesis.recipe import Part, ShardPlan, SynthesisRecipe

PAPER_SETS = 1_600_000


@dataclass(frozen=True)
class Estimate:
    """Expected numbers of a run. calls: items that each model is given."""

    collages: float
    sets: float
    pictures: float
    calls: dict[Part, float]
    hours: dict[Part, float]
    storage: float
    """Bytes of sets and of kept collages."""

    @property
    def total_hours(self) -> float:
        """Hours of one device, with no waiting."""
        return sum(self.hours.values())


def estimate(recipe: SynthesisRecipe, objects: int, sets: float | None = None) -> Estimate:
    """Of the recipe over `objects` objects, or of as many collages as `sets` sets need."""
    assumed, stages, run = recipe.estimate, recipe.stages, recipe.run
    collages = float(objects * stages.collages * recipe.rounds) if sets is None else sets / assumed.sets
    requests = -(-stages.collages // PROMPTS_A_REQUEST) / stages.collages  # of each collage
    pictures = collages * assumed.pictures
    calls: dict[Part, float] = {
        "writer": collages * requests + collages * assumed.sets,
        "generator": collages,
        "detector": collages,
        "segmenter": collages,
        "embedder": collages * assumed.instances,
        "inpainter": pictures,
        "stylizer": pictures * stages.style_probability,
        "captioner": pictures,
    }
    hours = {part: count * getattr(assumed.seconds, part) / 3600 for part, count in calls.items()}
    shards = collages / (run.objects_per_shard * stages.collages)
    looks = min(run.kept_collages, run.objects_per_shard * stages.collages) * shards
    storage = pictures * stages.scene_size**2 * assumed.picture_bytes
    storage += looks * stages.collage_size**2 * assumed.picture_bytes
    return Estimate(collages, collages * assumed.sets, pictures, calls, hours, storage)


def describe(recipe: SynthesisRecipe, objects: int, plans: list[ShardPlan]) -> str:
    """Return the plan and the estimate in words, for this recipe and at the paper's scale."""
    own, paper = estimate(recipe, objects), estimate(recipe, objects, PAPER_SETS)
    assumed = recipe.estimate
    lines = [
        f"Plan: {objects} objects, {recipe.rounds} round(s) of {recipe.stages.collages} collages each, "
        f"{len(plans)} shards.",
        f"Assumed: a collage gives {assumed.sets:g} sets with {assumed.pictures:g} pictures in all; seconds "
        f"a call on one {assumed.device}:",
        "  " + ", ".join(f"{part} {getattr(assumed.seconds, part):g}" for part in own.hours),
        f"{'':<22}{'this recipe':>16}{'1.6 million sets':>20}",
    ]
    rows = [
        ("collages", own.collages, paper.collages),
        ("sets", own.sets, paper.sets),
        ("pictures", own.pictures, paper.pictures),
    ]
    lines += [f"{name:<22}{one:>16,.0f}{other:>20,.0f}" for name, one, other in rows]
    lines += [
        f"{f'{part}, hours':<22}{own.hours[part]:>16,.1f}{paper.hours[part]:>20,.0f}" for part in own.hours
    ]
    lines.append(f"{f'{assumed.device} hours':<22}{own.total_hours:>16,.1f}{paper.total_hours:>20,.0f}")
    lines.append(f"{'storage':<22}{_bytes(own.storage):>16}{_bytes(paper.storage):>20}")
    return "\n".join(lines)


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
