"""Things without a name: every family within its slots, and silhouettes and surfaces that vary widely."""

from collections import Counter

import numpy as np
import pytest

from jedi_toybox.assembly import bounding_box
from jedi_toybox.builder import SLOTS, Builder
from jedi_toybox.parts import KINDS, PATTERNS
from jedi_toybox.subjects import build_subject
from jedi_toybox.things import THINGS


@pytest.mark.parametrize("family", sorted(set(THINGS), key=lambda family: family.__name__))
def test_families_keep_the_slots_and_never_repeat(family) -> None:
    shapes = set()
    for seed in range(200):
        builder = Builder(np.random.default_rng(seed), noisy=True)
        family(builder)
        parts = builder.finish()
        counts = Counter(part.kind for part in parts)
        assert parts
        assert all(counts[kind] <= SLOTS[kind] for kind in KINDS)
        shapes.add(tuple((part.kind, part.center, part.size, part.rotation) for part in parts))
    assert len(shapes) == 200


def test_silhouettes_vary_from_flat_to_tall_and_from_one_part_to_many() -> None:
    things = [build_subject("thing", np.random.default_rng(seed)) for seed in range(600)]
    counts = np.array([len(parts) for parts in things])
    assert counts.min() == 1
    assert counts.max() >= 12
    extents = np.array([np.subtract(*reversed(bounding_box(parts))) for parts in things])
    for axis in range(3):
        low, high = np.quantile(extents[:, axis], [0.05, 0.95])
        assert low < 0.45
        assert high > 0.9


def test_things_are_more_patterned_than_plain_and_use_every_pattern() -> None:
    patterns = Counter(
        part.material.pattern
        for seed in range(300)
        for part in build_subject("toy", np.random.default_rng(seed))
    )
    assert patterns["plain"] < 0.5 * patterns.total()
    assert set(patterns) == set(PATTERNS)


def test_a_builder_leaves_out_what_has_no_slot() -> None:
    builder = Builder(np.random.default_rng(0))
    for _ in range(20):
        builder.solid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), builder.paint(), pair=True)
    assert Counter(part.kind for part in builder.parts) == {"ellipsoid": 8, "box": 4, "frustum": 4}
    assert builder.room("box") == 1


def test_a_limb_runs_from_start_to_end() -> None:
    builder = Builder(np.random.default_rng(0))
    builder.limb((0.1, 0.2, 0.3), (0.1, 0.2, 1.3), 0.2, builder.flat(), 0.5)
    low, high = bounding_box(builder.parts)
    assert low == pytest.approx((-0.1, 0.0, 0.3))
    assert high == pytest.approx((0.3, 0.4, 1.3))


def test_a_tube_that_widens_is_widest_at_its_top() -> None:
    builder = Builder(np.random.default_rng(0))
    builder.tube((0.0, 0.0, 0.0), (0.4, 1.0, 0.2), builder.flat(), 2.0)
    part = builder.parts[0]
    assert part.taper == 0.5
    assert part.size == (0.4, 1.0, 0.2)
    assert np.abs(part.rotation) == pytest.approx([0.0, 0.0, 180.0])
