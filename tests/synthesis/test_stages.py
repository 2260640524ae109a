"""The whole of Algorithm 1 on small exact models; settings and seeds."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from jedi_diffusion.randomness import LARGEST_SEED, derive_generator, derive_seed
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.protocols import Failure
from jedi_diffusion.synthesis.records import Reason, Stage
from jedi_diffusion.synthesis.settings import StageSettings
from jedi_diffusion.synthesis.stages import synthesize
from tests.helpers.synthesis_models import Writer, make_models

ITEMS = [ObjectName("disc", "shape"), ObjectName("ring", "shape")]
SETTINGS = StageSettings(collages=2, collage_size=128, scene_size=64)


def same(one: ImageSet, other: ImageSet) -> bool:
    assert one.masks is not None
    assert other.masks is not None
    pairs = zip(one.pictures + one.masks, other.pictures + other.masks, strict=True)
    return one.captions == other.captions and one.info == other.info and all(a == b for a, b in pairs)


def test_objects_become_sets_of_one_subject_with_their_provenance() -> None:
    made = synthesize(ITEMS, make_models(), SETTINGS, 3)
    assert [(each.info["object"], each.info["collage"], len(each)) for each in made.kept] == [
        ("disc", 0, 3),
        ("disc", 1, 3),
        ("ring", 0, 3),
        ("ring", 1, 3),
    ]
    assert {each.reason for each in made.rejected} == {Reason.CUT_BY_BORDER, Reason.TOO_SMALL, Reason.ALONE}
    assert len(made.rejected) == 3 * 4
    for each in made.kept:
        assert each.info["category"] == "shape"
        assert each.info["seed"] == 3
        assert json.loads(json.dumps(each.info)) == each.info
        for picture, mask, details in zip(each.pictures, each.masks, each.info["pictures"], strict=True):
            assert picture.size == mask.size == (64, 64)
            assert [step["stage"] for step in details["steps"]] == [stage.value for stage in Stage][:-1]
            styled = details["steps"][-2]["style"]
            red, _, blue = np.asarray(picture)[np.asarray(mask) == 255].mean(axis=0)
            assert (red > blue) == (styled is None)  # only red discs; the stylizer inverts


def test_each_object_alone_gives_the_same_as_all_together() -> None:
    together = synthesize(ITEMS, make_models(), SETTINGS, 3)
    alone = [synthesize([item], make_models(), SETTINGS, 3) for item in ITEMS]
    sets = [each for outcome in alone for each in outcome.kept]
    assert all(same(one, other) for one, other in zip(together.kept, sets, strict=True))
    assert set(together.rejected) == {each for outcome in alone for each in outcome.rejected}
    other = synthesize(ITEMS, make_models(), SETTINGS, 4)
    assert not any(same(one, two) for one, two in zip(together.kept, other.kept, strict=True))


def test_nothing_in_nothing_out() -> None:
    made = synthesize([], make_models(), SETTINGS, 0)
    assert made.kept == made.rejected == ()
    failing = synthesize(ITEMS[:1], make_models(writer=Writer([Failure("no")])), SETTINGS, 0)
    assert not failing.kept
    assert [each.reason for each in failing.rejected] == [Reason.MODEL_FAILED] * 2


def test_seeds_differ_in_everything_they_are_derived_from_and_stay() -> None:
    seeds = {
        derive_seed(seed, name, stage, *numbers)
        for seed in (0, 1)
        for name in ("a", "b", "a 1")
        for stage in ("scene", "style")
        for numbers in ((), (0,), (1,), (0, 1), (1, 0), (0, 1, 2))
    }
    assert len(seeds) == 2 * 3 * 2 * 6
    assert all(0 <= seed <= LARGEST_SEED for seed in seeds)
    # A manifest must be the same in years to come.
    assert derive_seed(0, "teapot", "style", 1, 2) == 5457359660435418328
    draws = [derive_generator(0, "teapot", "style", number).random() for number in range(2000)]
    assert abs(np.mean(draws) - 0.5) < 4 * np.sqrt(1 / 12 / 2000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"affinty": 0.9},
        {"affinity": 1.1},
        {"min_scale": 0.9, "max_scale": 0.5},
        {"min_scale": 0},
        {"min_area": 0.6},
        {"min_pictures": 5},
        {"min_pictures": 1},
        {"styles": ()},
        {"collage_size": 1001},
        {"collages": 0},
        {"affinity": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        StageSettings(**wrong)


def test_defaults_are_the_papers() -> None:
    default = StageSettings()
    assert default.collage_suffix == "photos of the same"
    assert default.affinity == 0.95
    assert default.style_probability == 0.5
    assert (default.min_pictures, default.max_pictures) == (2, 4)
