"""Rank correlation and the ordering line against closed forms."""

from itertools import permutations

import numpy as np
import pytest

from experiments.paper_tables.ordering import compare, rank_correlation, verdict


def spearman(first: list[float], second: list[float]) -> float:
    """1 - 6 sum d^2 / (n (n^2 - 1)), for numbers without ties."""
    n = len(first)
    ranks = [[sorted(values).index(value) for value in values] for values in (first, second)]
    return 1 - 6 * sum((a - b) ** 2 for a, b in zip(*ranks, strict=True)) / (n * (n * n - 1))


def test_rank_correlation_against_its_closed_form() -> None:
    one = [0.3, 0.1, 0.9, 0.5]
    columns = [list(order) for order in permutations([1.0, 2.0, 5.0, 7.0])]
    found = rank_correlation(np.array(one), np.array(columns).T)
    assert found == pytest.approx([spearman(one, column) for column in columns])


def test_ties_share_their_rank_and_equal_rows_have_no_correlation() -> None:
    found = rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([[1.0, 4.0], [1.0, 4.0], [2.0, 4.0]]))
    # Ranks 1, 2, 3 and 1.5, 1.5, 3: 1.5 / sqrt(2 * 1.5).
    assert found[0] == pytest.approx(1.5 / np.sqrt(3))
    assert np.isnan(found[1])


def steady(**means: float) -> dict[str, np.ndarray]:
    """Rows of 40 subjects with hardly any spread, the same subject good or bad in all rows."""
    noise = np.random.default_rng(0).normal(0, 0.3, 40)
    return {name: mean + noise for name, mean in means.items()}


def test_an_ordering_that_holds_one_that_is_turned_and_one_that_is_open() -> None:
    paper = {"a": 0.1, "b": 0.2, "c": 0.3, "absent": 0.9}
    held = compare("DINO", paper, steady(a=0.4, b=0.5, c=0.6, other=0.0))
    assert held is not None
    assert held.correlation == (1, 1, 1)
    assert (held.pairs, held.kept, held.clear, held.turned) == (3, 3, 3, 0)
    assert verdict([held]).startswith("The paper's ordering holds here. DINO: 3 of 3 pairs")

    turned = compare("DINO", paper, steady(a=0.6, b=0.5, c=0.4))
    assert turned is not None
    assert turned.correlation == (-1, -1, -1)
    assert (turned.kept, turned.turned) == (0, 3)
    assert verdict([held, turned]).startswith("The paper's ordering does not hold here.")

    random = np.random.default_rng(1)
    wide = {name: values + random.normal(0, 2, 40) for name, values in steady(a=0.5, b=0.5, c=0.5).items()}
    wide["a"] += wide["b"].mean() - wide["a"].mean() + 0.01  # against the paper, but by chance
    open_ = compare("DINO", paper, wide)
    assert open_ is not None
    assert open_.kept < 3
    assert open_.turned == 0
    assert open_.correlation is not None
    assert open_.correlation.low < 0 < open_.correlation.high
    assert "is open here" in verdict([open_])


def test_equal_numbers_in_the_paper_are_no_pair_and_one_row_is_no_ordering() -> None:
    found = compare("DINO", {"a": 0.1, "b": 0.1, "c": 0.3}, steady(a=0.1, b=0.9, c=2.0))
    assert found is not None
    assert (found.pairs, found.kept) == (2, 2)
    assert compare("DINO", {"a": 0.1, "b": 0.2}, steady(a=0.1)) is None
    assert verdict([]).startswith("No two rows are shared")
