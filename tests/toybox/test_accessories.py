"""Attributes: a subject's own parts stay what they are and move as one body; accessories fit the slots."""

from collections import Counter

import numpy as np
import pytest

from jedi_diffusion.errors import UsageError
from jedi_toybox.accessories import ATTRIBUTES, apply_attribute, find_head
from jedi_toybox.assembly import bounding_box, rotation_matrix
from jedi_toybox.parts import KINDS, Part
from jedi_toybox.subjects import CLASSES, HELD_OUT_CLASSES, build_subject

NOUNS = (*CLASSES, *HELD_OUT_CLASSES, "thing", "toy", "object")
EXTRA = 2


def subject(noun: str, seed: int) -> list[Part]:
    return build_subject(noun, np.random.default_rng(seed))


def dressed(noun: str, attribute: str, seed: int) -> tuple[list[Part], list[Part]]:
    """The subject's own parts, and all parts with the attribute."""
    parts = subject(noun, seed)
    return parts, apply_attribute(parts, attribute, np.random.default_rng(seed))


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_own_parts_keep_their_look_and_move_as_one_rigid_body(attribute: str) -> None:
    for seed, noun in enumerate(NOUNS):
        before, after = dressed(noun, attribute, seed)
        own = after[: len(before)]
        assert [(p.kind, p.size, p.material, p.taper) for p in own] == [
            (p.kind, p.size, p.material, p.taper) for p in before
        ]
        old = np.array([rotation_matrix(p.rotation) for p in before])
        new = np.array([rotation_matrix(p.rotation) for p in own])
        motion = new[0] @ old[0].T
        np.testing.assert_allclose(motion @ old, new, atol=1e-6)
        centers = np.array([p.center for p in before]) @ motion.T
        shift = np.array([p.center for p in own]) - centers
        np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-6)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_accessories_are_few_grounded_and_close(attribute: str) -> None:
    for seed, noun in enumerate(NOUNS):
        before, after = dressed(noun, attribute, seed)
        added = Counter(part.kind for part in after[len(before) :])
        assert all(added[kind] <= EXTRA for kind in KINDS)
        low, high = np.array(bounding_box(after))
        assert low[1] == pytest.approx(0.0, abs=0.08 if added else 1e-9)
        assert (high - low).max() < 2.0
        assert all(half > 0 for part in after for half in part.size)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_an_attribute_is_a_pure_function_and_leaves_its_argument_alone(attribute: str) -> None:
    parts = subject("robot", 5)
    kept = list(parts)
    first = apply_attribute(parts, attribute, np.random.default_rng(1))
    assert first == apply_attribute(parts, attribute, np.random.default_rng(1))
    assert parts == kept
    assert first != parts


@pytest.mark.parametrize("attribute", [name for name in ATTRIBUTES if "hat" in name or "crown" in name])
def test_headgear_sits_on_top_of_the_head(attribute: str) -> None:
    for seed, noun in enumerate(CLASSES):
        before, after = dressed(noun, attribute, seed)
        head = find_head(before)
        low, high = np.array(bounding_box(after[len(before) :]))
        assert high[1] > head.center[1] + head.half[1]
        assert low[1] < head.center[1] + head.half[1] + 0.02
        assert (low + high)[0] / 2 == pytest.approx(head.center[0], abs=0.02)


def test_lying_subjects_lie_and_upside_down_ones_stand_on_their_head() -> None:
    for noun in ("bottle", "rocket", "giraffe"):
        before, lying = dressed(noun, "lying on its side", 2)
        extents, turned = (np.subtract(*reversed(bounding_box(parts))) for parts in (before, lying))
        np.testing.assert_allclose(turned, extents[[1, 0, 2]], atol=1e-6)
        _, inverted = dressed(noun, "upside down", 2)
        height = extents[1]
        for old, new in zip(before, inverted, strict=True):
            assert new.center[1] == pytest.approx(height - old.center[1], abs=1e-6)


def test_a_dogs_hat_goes_on_its_head_not_its_back() -> None:
    for seed in range(50):
        parts = subject("dog", seed)
        assert find_head(parts).center == pytest.approx(parts[1].center)


def test_captions_of_attributes_are_plain_words() -> None:
    assert len(ATTRIBUTES) >= 8
    assert all(word.isalpha() for attribute in ATTRIBUTES for word in attribute.split())


def test_an_unknown_attribute_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="wearing a toga"):
        apply_attribute(subject("cat", 0), "wearing a toga", np.random.default_rng(0))
