"""What a step trains on, as a pure function of the recipe and the step: nothing to save, nothing to restore.

Every process can lay out the whole step; it then works on its own part. So the same sets, conditions and
noise are trained on whatever the number of processes and the size of their micro-batches.

Letters: N pictures in a set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from jedi_diffusion.data.mixture import Mixture, places
from jedi_diffusion.randomness import keyed_number
from jedi_diffusion.train.joint_recipe import Conditions, JointRecipe
from jedi_diffusion.visibility import DrawnVisibility, Visibility


@dataclass(frozen=True)
class SetPlan:
    """The conditions of the set at a place: for each of its N pictures whether it is a reference, and whether
    its caption is left empty. `noise_seed` decides timestep and noise. The other pictures read the share
    `kept` of each reference's tokens, which `token_seed` and its number in the set decide.
    """

    place: int
    source: int
    is_reference: tuple[bool, ...]
    silent: tuple[bool, ...]
    noise_seed: int
    kept: float = 1.0
    token_seed: int = 0

    def __len__(self) -> int:
        return len(self.is_reference)

    @property
    def silent_references(self) -> int:
        """How many references have no caption."""
        return sum(each and silent for each, silent in zip(self.is_reference, self.silent, strict=True))

    @property
    def visibility(self) -> tuple[Visibility | None, ...]:
        """What of each picture the others read; None for all."""
        return tuple(
            DrawnVisibility(share=self.kept, seed=self.token_seed + number)
            if is_reference and self.kept < 1
            else None
            for number, is_reference in enumerate(self.is_reference)
        )


@dataclass(frozen=True)
class StepPlan:
    """All sets of a step in their global order, and the step's coupling."""

    sets: tuple[SetPlan, ...]
    cached: bool

    def weight(self, reference_weight: float) -> float:
        """Return the sum of the pictures' weights, eq. 2's denominator. Clean references carry no loss."""
        references = sum(sum(each.is_reference) for each in self.sets)
        targets = sum(map(len, self.sets)) - references
        return targets + (0.0 if self.cached else reference_weight * references)

    def part(self, rank: int, ranks: int) -> tuple[SetPlan, ...]:
        """Return the sets of one of several processes. Raises UsageError if they cannot be split evenly."""
        share = places(0, len(self.sets), rank, ranks)
        return self.sets[share.start : share.stop]


def plan_step(recipe: JointRecipe, mixture: Mixture, step: int) -> StepPlan:
    """Return the sets of a step and their conditions, drawn as section 3.3 says, from seed and place
    alone.
    """
    picks = [mixture.pick(place) for place in places(step, recipe.training.batch)]
    sets = tuple(plan_set(recipe.conditions, recipe.seed, p.place, p.source, p.size) for p in picks)
    coupling = _generator(recipe.seed, "coupling", step)
    return StepPlan(sets, torch.rand((), generator=coupling).item() < recipe.conditions.cached)


def plan_set(conditions: Conditions, seed: int, place: int, source: int, size: int) -> SetPlan:
    """Return one set. It keeps at least one target: a set of references alone teaches nothing."""
    generator = _generator(seed, "conditions", place)
    reference = torch.rand(size, generator=generator) < conditions.reference
    spared = torch.randint(size, (), generator=generator)
    no_caption = torch.rand(size, generator=generator) < conditions.no_caption
    no_text = torch.rand((), generator=generator) < conditions.no_text
    if reference.all():
        reference[spared] = False
    silent = no_text | (no_caption & reference)
    low, high = conditions.reference_tokens
    drawn = torch.rand((), generator=_generator(seed, "reference tokens", place)).item()
    kept = low + drawn * (high - low)
    return SetPlan(
        place=place,
        source=source,
        is_reference=tuple(reference.tolist()),
        silent=tuple(silent.tolist()),
        noise_seed=keyed_number(seed, "noise", place) >> 1,
        kept=kept,
        token_seed=keyed_number(seed, "kept tokens", place) >> 2 if kept < 1 else 0,
    )


def micro_batches(sets: Sequence[SetPlan], pictures: int, least: int = 1) -> list[tuple[int, ...]]:
    """Return the numbers of the sets, small sets first, in groups of at most `pictures` pictures.

    Sets of one size share an attention call, so they are put together. At least `least` groups are made, no
    more than there are sets.
    """
    groups = [*_groups(sets, pictures)]
    while len(groups) < min(least, len(sets)):
        fullest = max(range(len(groups)), key=lambda number: len(groups[number]))
        half = len(groups[fullest]) // 2
        groups[fullest : fullest + 1] = [groups[fullest][:half], groups[fullest][half:]]
    return [tuple(group) for group in groups]


def _groups(sets: Sequence[SetPlan], pictures: int) -> Iterator[list[int]]:
    group: list[int] = []
    held = 0
    for number in sorted(range(len(sets)), key=lambda number: len(sets[number])):
        if group and held + len(sets[number]) > pictures:
            yield group
            group, held = [], 0
        group.append(number)
        held += len(sets[number])
    yield group


def _generator(seed: int, *key: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(keyed_number(seed, *key) >> 1)
