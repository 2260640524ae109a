"""What a step trains on: conditions in the recipe's shares, the same for every layout of processes."""

from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from jedi_diffusion.errors import UsageError
from jedi_diffusion.train.joint_recipe import Conditions, JointRecipe
from jedi_diffusion.train.plan import SetPlan, StepPlan, micro_batches, plan_set, plan_step


def recipe_of(batch: int = 8, **conditions: float) -> JointRecipe:
    return JointRecipe.model_validate(
        {
            "name": "test",
            "base": "somewhere",
            "data": {"sources": [{"kind": "sets", "place": "x"}]},
            "conditions": conditions,
            "training": {"steps": 10, "batch": batch},
        }
    )


def set_of(size: int, references: int = 0) -> SetPlan:
    flags = (True,) * references + (False,) * (size - references)
    return SetPlan(0, 0, flags, (False,) * size, 0)


class Sizes:
    """Stands in for a mixture: sizes by place, no pictures."""

    def pick(self, place: int) -> SimpleNamespace:
        return SimpleNamespace(place=place, source=place % 2, size=1 + place % 4)


def test_conditions_come_in_the_asked_shares() -> None:
    conditions = Conditions(reference=0.5, no_caption=0.3, no_text=0.2)
    sets = [plan_set(conditions, 0, place, 0, 4) for place in range(4000)]
    pictures = [(r, s) for each in sets for r, s in zip(each.is_reference, each.silent, strict=True)]
    references = [silent for reference, silent in pictures if reference]
    # One set in sixteen is drawn with references only, and spares one of its four pictures.
    assert len(references) / len(pictures) == pytest.approx(0.5 - 1 / 64, abs=0.02)
    assert sum(references) / len(references) == pytest.approx(1 - 0.8 * 0.7, abs=0.02)
    targets = [silent for reference, silent in pictures if not reference]
    assert sum(targets) / len(targets) == pytest.approx(0.2, abs=0.02)
    assert all(all(each.silent) for each in sets if any(map(_silent_target, each.is_reference, each.silent)))


def _silent_target(reference: bool, silent: bool) -> bool:
    return silent and not reference


def test_a_share_of_the_tokens_of_references_is_drawn_for_every_set_and_changes_nothing_else() -> None:
    plain = [plan_set(Conditions(), 0, place, 0, 3) for place in range(300)]
    whole = [plan_set(Conditions(reference_tokens=(1.0, 1.0)), 0, place, 0, 3) for place in range(300)]
    some = [plan_set(Conditions(reference_tokens=(0.25, 0.75)), 0, place, 0, 3) for place in range(300)]
    assert whole == plain
    assert not any(any(each.visibility) for each in plain)
    shares = [each.kept for each in some]
    assert min(shares) == pytest.approx(0.25, abs=0.01)
    assert max(shares) == pytest.approx(0.75, abs=0.01)
    for one, other in zip(plain, some, strict=True):
        assert (one.is_reference, one.silent, one.noise_seed) == (
            other.is_reference,
            other.silent,
            other.noise_seed,
        )
        assert [each is not None for each in other.visibility] == list(other.is_reference)
        drawn = [each for each in other.visibility if each is not None]
        assert all(each.share == other.kept for each in drawn)
        assert len({each.seed for each in drawn}) == len(drawn)
    with pytest.raises(ValidationError, match="from the smaller share to the larger"):
        Conditions(reference_tokens=(0.5, 0.25))


def test_every_set_keeps_a_target() -> None:
    sets = [plan_set(Conditions(reference=1.0), 0, place, 0, 1 + place % 4) for place in range(200)]
    assert all(sum(each.is_reference) == len(each) - 1 for each in sets)
    spared = [each.is_reference.index(False) for each in sets if len(each) == 4]
    assert set(spared) == {0, 1, 2, 3}


def test_a_plan_depends_on_seed_and_step_alone() -> None:
    recipe = recipe_of(cached=0.5)
    first, again = (plan_step(recipe, Sizes(), 3) for _ in range(2))
    assert first == again
    assert [each.place for each in first.sets] == list(range(24, 32))
    assert [len(each) for each in first.sets] == [1, 2, 3, 4] * 2
    assert len({each.noise_seed for step in range(4) for each in plan_step(recipe, Sizes(), step).sets}) == 32
    couplings = [plan_step(recipe, Sizes(), step).cached for step in range(400)]
    assert sum(couplings) / 400 == pytest.approx(0.5, abs=0.1)


def test_plans_are_those_that_earlier_versions_trained_on() -> None:
    """Or a run that is resumed would go on with other conditions and noise. Whatever torch's own state is."""
    conditions = Conditions(reference=0.5, no_caption=0.5, no_text=0.3)
    torch.manual_seed(1)
    sets = [plan_set(conditions, 7, place, 1, 4) for place in range(4)]
    assert sets == [
        SetPlan(0, 1, (True, True, False, True), (False, True, False, False), 6104156626916515110),
        SetPlan(1, 1, (False, True, False, False), (False, True, False, False), 1860456105300417437),
        SetPlan(2, 1, (True, False, False, True), (False, False, False, False), 2103031966289855577),
        SetPlan(3, 1, (False, True, True, False), (True, True, True, True), 814115353496402874),
    ]
    recipe = recipe_of(cached=0.5)
    joint = [step for step in range(16) if not plan_step(recipe, Sizes(), step).cached]
    assert joint == [3, 5, 10]


def test_another_seed_draws_all_of_a_plan_anew() -> None:
    recipe = recipe_of(batch=4, cached=0.5)
    first, other = (
        [plan_step(each, Sizes(), step) for step in range(100)]
        for each in (recipe, recipe.model_copy(update={"seed": 1}))
    )
    noise, others = ({each.noise_seed for plan in plans for each in plan.sets} for plans in (first, other))
    assert not noise & others
    references = [[each.is_reference for plan in plans for each in plan.sets] for plans in (first, other)]
    assert references[0] != references[1]
    assert [plan.cached for plan in first] != [plan.cached for plan in other]
    assert [each.source for each in first[0].sets] == [0, 1, 0, 1]


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_processes_share_a_step_in_order(ranks: int) -> None:
    plan = plan_step(recipe_of(), Sizes(), 5)
    parts = [plan.part(rank, ranks) for rank in range(ranks)]
    assert tuple(each for part in parts for each in part) == plan.sets
    with pytest.raises(UsageError, match="8 sets cannot be split evenly over 3"):
        plan.part(0, 3)


def test_the_weight_counts_pictures_as_eq_2_does() -> None:
    sets = (set_of(4, references=3), set_of(2, references=1), set_of(1))
    assert StepPlan(sets, cached=False).weight(1.0) == 7
    assert StepPlan(sets, cached=False).weight(0.25) == 3 + 4 * 0.25
    assert StepPlan(sets, cached=True).weight(1.0) == 3


def test_micro_batches_hold_whole_sets_of_one_size_together() -> None:
    sets = [set_of(size) for size in (3, 4, 1, 2, 2, 4, 4, 1)]
    assert micro_batches(sets, 8) == [(2, 7, 3, 4), (0, 1), (5, 6)]
    assert micro_batches(sets, 4) == [(2, 7, 3), (4,), (0,), (1,), (5,), (6,)]
    assert micro_batches([set_of(1), set_of(1)], 8) == [(0, 1)]
    assert micro_batches([set_of(2), set_of(1)], 8, least=3) == [(1,), (0,)]


@pytest.mark.parametrize("least", range(1, 9))
def test_as_many_micro_batches_as_asked_for(least: int) -> None:
    """What sharded processes need, which all have to run the network as often."""
    sets = [set_of(size) for size in (3, 4, 1, 2, 2, 4, 4, 1)]
    groups = micro_batches(sets, 8, least)
    assert len(groups) == max(3, least)
    assert sorted(number for group in groups for number in group) == list(range(8))
    assert all(0 < sum(len(sets[number]) for number in group) <= 8 for group in groups)
