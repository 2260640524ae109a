"""Keyed permutations against what they must be: bijections, different for each key, without pattern."""

from collections import Counter

import numpy as np
import pytest

from jedi_diffusion.randomness import Permutation, keyed_number


@pytest.mark.parametrize("length", [*range(1, 40), 63, 64, 65, 1000, 4097])
def test_every_number_comes_once(length: int) -> None:
    permutation = Permutation(length, 7, "x")
    assert sorted(permutation(index) for index in range(length)) == list(range(length))


def test_numbers_of_any_size_work() -> None:
    permutation = Permutation(10**12, 7)
    values = [permutation(index) for index in range(1000)]
    assert len(set(values)) == 1000
    assert max(values) > 9 * 10**11 > 10**11 > min(values)


def test_keys_decide_alone() -> None:
    def order(*key: int | str) -> list[int]:
        return [Permutation(50, *key)(index) for index in range(50)]

    assert order(1, "a") == order(1, "a")
    assert len({tuple(order(*key)) for key in ((1, "a"), (2, "a"), (1, "b"), ("1", "a"), (1, "a", 0))}) == 5


def test_all_orders_of_three_are_equally_likely() -> None:
    draws = 3000
    orders = Counter(tuple(Permutation(3, key)(index) for index in range(3)) for key in range(draws))
    assert len(orders) == 6
    chi_squared = sum((count - draws / 6) ** 2 / (draws / 6) for count in orders.values())
    assert chi_squared < 20.5  # 0.1% for 5 degrees of freedom


def test_neighbours_are_not_related() -> None:
    values = np.array([Permutation(4096, 3)(index) for index in range(4096)])
    correlation = np.corrcoef(values[:-1], values[1:])[0, 1]
    assert abs(correlation) < 0.06  # 4 / sqrt(n)


def test_keyed_numbers_are_even_and_tell_types_apart() -> None:
    assert keyed_number(1, 23) != keyed_number(12, 3)
    assert keyed_number("1") != keyed_number(1)
    counts = Counter(keyed_number(5, number) % 8 for number in range(4000))
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 24.3  # 0.1%, 7 degrees


def test_nothing_outside_has_a_place() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Permutation(0)
    for index in (-1, 5):
        with pytest.raises(IndexError):
            Permutation(5)(index)
