"""Equations 3 and 4 against closed forms, and the branches that each mode needs."""

import itertools

import numpy as np
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
    matched_guidance,
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


def norm_matched(mode: str, text: float, image: float, prediction: dict) -> np.ndarray:
    """Equation 4 with unit vectors: both differences have the length of the shorter one, image by image."""
    null, full = prediction[NULL], prediction[FULL]
    partial = prediction[TEXT if mode == "text_first" else IMAGE]
    scales = (text, image) if mode == "text_first" else (image, text)
    made = []
    for e0, e1, e in zip(null, partial, full, strict=True):
        steps = [(e1 - e0).ravel(), (e - e1).ravel()]
        shortest = min(np.sqrt(step @ step) for step in steps)
        units = [step / np.sqrt(step @ step) for step in steps]
        added = sum(scale * shortest * unit for scale, unit in zip(scales, units, strict=True))
        made.append(e0 + added.reshape(e0.shape))
    return np.stack(made)


@pytest.mark.parametrize("mode", ["text_first", "image_first"])
@pytest.mark.parametrize(("text", "image"), [(3.0, 2.0), (3.0, 3.0), (0.5, 7.0)])
def test_matched_norms_are_those_of_the_smaller_difference(mode, text, image):
    """Equal scales do not make equation 3 of it."""
    plan = plan_guidance(mode, text, image, match_norms=True)
    assert len(plan.branches) == 3
    assert plan.match_norms
    draw = np.random.default_rng(1)
    rows = {
        each: draw.normal(size=(2, 3, 4, 5)) * width
        for each, width in zip(PREDICTIONS, (1, 2, 3, 9), strict=True)
    }
    guided = plan.combine([torch.from_numpy(rows[branch]) for branch in plan.branches])
    np.testing.assert_allclose(guided.numpy(), norm_matched(mode, text, image, rows), rtol=1e-12)


def test_norms_of_one_difference_have_nothing_to_match():
    for text, image in ((1.0, 4.0), (4.0, 0.0), (1.0, 1.0)):
        plan = plan_guidance("text_first", text, image, match_norms=True)
        assert plan == plan_guidance("text_first", text, image)
    assert plan_guidance("joint", 3.0, match_norms=True) == plan_guidance("joint", 3.0)
    assert not plan_guidance("text_first", 3, 2, pictures_matter=False, match_norms=True).match_norms


def test_predictions_that_are_alike_have_no_direction_to_match():
    null, full = RANDOM[:1], RANDOM[1:2]
    torch.testing.assert_close(matched_guidance(null, null, full, 3.0, 2.0), null)


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
