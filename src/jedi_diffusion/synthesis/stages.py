"""The eight stages of Algorithm 1 in their order.

A stage is a pure function: records, models, settings and the run's seed in, an `Outcome` out. Nothing is
read or written, and each random choice has a seed of its own, so a stage gives the same for a batch of any
size.
"""

from __future__ import annotations

from collections.abc import Sequence

from jedi_diffusion.sets import ImageSet
from jedi_diffusion.synthesis.collages import find_instances, group_instances, make_collages
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.prompts import plan_collages
from jedi_diffusion.synthesis.protocols import Models
from jedi_diffusion.synthesis.records import Outcome
from jedi_diffusion.synthesis.scenes import (
    assemble_sets,
    caption_scenes,
    draft_scenes,
    inpaint_scenes,
    stylize_scenes,
)
from jedi_diffusion.synthesis.settings import StageSettings

__all__ = [
    "assemble_sets",
    "caption_scenes",
    "draft_scenes",
    "find_instances",
    "group_instances",
    "inpaint_scenes",
    "make_collages",
    "plan_collages",
    "stylize_scenes",
    "synthesize",
]


def synthesize(
    items: Sequence[ObjectName], models: Models, settings: StageSettings, seed: int
) -> Outcome[ImageSet]:
    """Run all stages, one after the other in this process: the sets of some objects, and every rejection.

    Raises ModelError where a model fails or breaks its protocol.
    """
    plans = plan_collages(items, models.writer, settings, seed)
    collages = make_collages(plans.kept, models.generator, settings, seed)
    instances = find_instances(collages.kept, models.detector, models.segmenter, settings)
    groups = group_instances(instances.kept, models.embedder, settings)
    drafts = draft_scenes(groups.kept, models.writer, settings, seed)
    scenes = inpaint_scenes(drafts.kept, models.inpainter, settings, seed)
    styled = stylize_scenes(scenes.kept, models.stylizer, settings, seed)
    captioned = caption_scenes(styled.kept, models.captioner, settings, seed)
    sets = assemble_sets(captioned.kept, settings, seed)
    outcomes = (plans, collages, instances, groups, drafts, scenes, styled, captioned, sets)
    return Outcome(sets.kept, tuple(each for outcome in outcomes for each in outcome.rejected))
