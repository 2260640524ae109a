"""Equations 3 and 4 against closed forms, and the branches that each mode needs."""

import itertools

import pytest
import torch

from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.guidance import (
    FULL,
    IMAGE,
    MODES,
    NULL,
    TEXT,
    joint_guidance,
    plan_guidance,
    staged_guidance,
)

RANDOM = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
PREDICTIONS = dict(zip((NULL, TEXT, IMAGE, FULL), RANDOM, strict=True))


def closed_form(mode: str, text: float, image: float) -> torch.Tensor:
    """Each mode as weights of its predictions, multiplied out by hand."""
    null, words, pictures, full = (PREDICTIONS[key] for key in (NULL, TEXT, IMAGE, FULL))
    if mode == "joint":
        return (1 - text) * null + text * full
    if mode == "text_first":
        return (1 - text) * null + (text - image) * words + image * full
    if mode == "image_first":
        return (1 - image) * null + (image - text) * pictures + text * full
    return (1 - text) * pictures + text * full


def test_equation_3():
    null, full = PREDICTIONS[NULL], PREDICTIONS[FULL]
    torch.testing.assert_close(joint_guidance(null, full, 3.0), 3 * full - 2 * null)


def test_equation_4():
    null, words, full = PREDICTIONS[NULL], PREDICTIONS[TEXT], PREDICTIONS[FULL]
    torch.testing.assert_close(
        staged_guidance(null, words, full, 4.0, 1.5), -3 * null + 2.5 * words + 1.5 * full
    )


@pytest.mark.parametrize(
    ("mode", "text", "image"), list(itertools.product(MODES, (0, 1, 3.0, 7.5), (0, 1, 3.0)))
)
def test_every_mode_equals_its_closed_form_whatever_is_left_out(mode, text, image):
    plan = plan_guidance(mode, text, image)
    guided = plan.combine([PREDICTIONS[branch] for branch in plan.branches])
    torch.testing.assert_close(guided, closed_form(mode, text, image))


def test_each_mode_runs_the_branches_it_names():
    assert plan_guidance("joint", 3).branches == (NULL, FULL)
    assert plan_guidance("text_first", 3, 2).branches == (NULL, TEXT, FULL)
    assert plan_guidance("image_first", 3, 2).branches == (NULL, IMAGE, FULL)
    assert plan_guidance("text_only", 3).branches == (IMAGE, FULL)


def test_text_first_takes_the_text_as_its_first_scale_and_image_first_the_references():
    assert plan_guidance("text_first", 3, 2).scales == (3, 2)
    assert plan_guidance("image_first", 3, 2).scales == (2, 3)


def test_equal_scales_of_equation_4_are_equation_3():
    for mode in ("text_first", "image_first"):
        assert plan_guidance(mode, 3) == plan_guidance("joint", 3)


@pytest.mark.parametrize("mode", MODES)
def test_scale_one_runs_the_full_branch_alone(mode):
    assert plan_guidance(mode, 1).branches == (FULL,)


@pytest.mark.parametrize("mode", MODES)
def test_without_references_every_mode_guides_on_the_text(mode):
    plan = plan_guidance(mode, 3, 2, pictures_matter=False)
    assert (plan.branches, plan.scales) == ((NULL, TEXT), (3,))


@pytest.mark.parametrize("mode", MODES)
def test_with_neither_text_nor_references_there_is_one_branch(mode):
    assert plan_guidance(mode, 3, 2, text_matters=False, pictures_matter=False).branches == (NULL,)


def test_without_text_only_the_references_guide():
    plan = plan_guidance("text_first", 3, 2, text_matters=False)
    assert (plan.branches, plan.scales) == ((NULL, IMAGE), (2,))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scales_that_are_not_finite_are_refused(bad):
    with pytest.raises(UsageError, match=r"^guidance_scale must"):
        plan_guidance("joint", bad)
    with pytest.raises(UsageError, match=r"^image_guidance_scale must"):
        plan_guidance("text_first", 3.0, bad)


def test_unknown_modes_are_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="one of joint, text_first, image_first, text_only, not"):
        plan_guidance("both", 3.0)
