"""The order of samples against brute force: shares, epochs, processes, workers, resume, replacements."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from jedi_diffusion.data.mixture import BLOCK, Mixture, MixtureSource, Schedule, places
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.errors import DataError, UsageError
from jedi_diffusion.sets import ImageSet
from tests.helpers.small_sets import picture, subject_set


class Plain:
    """Sets in memory; item k has `sizes[k]` pictures, and those in `broken` cannot be read."""

    def __init__(self, source: str, sizes: list[int], broken: tuple[int, ...] = ()) -> None:
        self.source, self.sizes, self.broken = source, sizes, broken

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, item: int) -> str:
        return f"{self.source} {item}"

    def size(self, item: int) -> int:
        return self.sizes[item]

    def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
        if item in self.broken:
            raise DataError(f"{self.name(item)} is broken.")
        given = subject_set(item, self.sizes[item])
        which = generator.permutation(self.sizes[item])[:size]
        return ImageSet(
            tuple(given.pictures[k] for k in which),
            tuple(given.captions[k] for k in which),
            given.subject,
            self.source,
        )


def mixture(seed: int = 0, broken: tuple[int, ...] = (), quarantine: Quarantine | None = None) -> Mixture:
    sources = [
        MixtureSource(Plain("sets", [1, 2, 3, 4, 5] * 3, broken), 0.5),
        MixtureSource(Plain("singles", [1] * 7), 0.25),
        MixtureSource(Plain("pairs", [6] * 50), 0.25, sizes=(2,)),
    ]
    return Mixture(sources, resolution=8, seed=seed, quarantine=quarantine)


@pytest.mark.parametrize("probabilities", [[1], [1, 1], [0.7, 0.1, 0.2], [5, 3, 1, 1 / 3], [1, 0.001]])
def test_counts_are_those_of_a_walk(probabilities: list[float]) -> None:
    """The number that a place gets in its source is the number of earlier places of that source."""
    schedule = Schedule(probabilities, seed=3)
    seen = Counter()
    for place in range(3 * BLOCK):
        source, number = schedule(place)
        assert number == seen[source]
        seen[source] += 1
        if place % BLOCK == BLOCK - 1:
            for each, share in enumerate(probabilities):
                assert abs(seen[each] - (place + 1) * share / sum(probabilities)) < 1.001
    far = Schedule(probabilities, seed=3)(10**12)
    share = probabilities[far[0]] / sum(probabilities)
    assert abs(far[1] - 10**12 * share) <= BLOCK + 1000


def test_sources_do_not_alternate_by_a_pattern() -> None:
    """Pairs of neighbours are as frequent as if each place were drawn alone."""
    schedule = Schedule([1, 1], seed=1)
    sources = [schedule(place)[0] for place in range(BLOCK)]
    pairs = Counter(pairwise(sources))
    assert all(abs(count - BLOCK / 4) < 130 for count in pairs.values())  # 4.7 deviations


def test_each_set_comes_once_an_epoch() -> None:
    mixed = mixture()
    picks = [mixed.pick(place) for place in range(400)]
    for number, source in enumerate(mixed.sources):
        count = len(source.collection)
        own = [pick for pick in picks if pick.source == number]
        epochs = [[pick.item for pick in own[k : k + count]] for k in range(0, len(own) - count + 1, count)]
        assert len(epochs) >= 2
        for number_of, epoch in enumerate(epochs):
            assert sorted(epoch) == list(range(count))
            assert {pick.epoch for pick in own[number_of * count : (number_of + 1) * count]} == {number_of}
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_set_sizes_are_even_and_never_more_than_there_are() -> None:
    mixed = mixture()
    sizes: dict[int, Counter[int]] = {}
    for place in range(6000):
        pick = mixed.pick(place)
        if pick.source == 0:
            sizes.setdefault(mixed.sources[0].collection.size(pick.item), Counter())[pick.size] += 1
        else:
            assert pick.size == pick.source
    assert {available: set(count) for available, count in sizes.items()} == {
        1: {1},
        2: {2},
        3: {2, 3},
        4: {2, 3, 4},
        5: {2, 3, 4},
    }
    for available in (4, 5):
        total = sizes[available].total()
        assert sum((count - total / 3) ** 2 / (total / 3) for count in sizes[available].values()) < 13.8


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_the_global_order_does_not_depend_on_processes(ranks: int) -> None:
    mixed = mixture()
    order = [
        mixed.pick(place)
        for step in range(5)
        for rank in range(ranks)
        for place in places(step, batch=16, rank=rank, ranks=ranks)
    ]
    assert order == [mixed.pick(place) for place in range(5 * 16)]


def test_a_place_needs_no_history() -> None:
    """Resume: places are asked for in any order, in another object, and give the same pictures."""
    first, second = mixture(), mixture()
    expected = {place: first[place] for place in range(40)}
    for place in reversed(range(40)):
        again = second[place]
        assert again.info == expected[place].info
        assert again.captions == expected[place].captions
        assert [np.asarray(each).tolist() for each in again.pictures] == [
            np.asarray(each).tolist() for each in expected[place].pictures
        ]


def test_seeds_change_the_order() -> None:
    orders = {tuple(mixture(seed).pick(place) for place in range(50)) for seed in range(5)}
    assert len(orders) == 5


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
def test_workers_of_a_data_loader_change_nothing() -> None:
    loader = pytest.importorskip("torch.utils.data").DataLoader
    mixed = mixture()
    shown = [
        [each.info["place"] for batch in made for each in batch]
        for made in (
            loader(
                mixed,
                batch_sampler=[list(places(step, 4)) for step in range(3)],
                collate_fn=list,
                num_workers=n,
            )
            for n in (0, 2)
        )
    ]
    assert shown == [list(range(12))] * 2


def test_broken_sets_are_replaced_and_told(tmp_path: Path) -> None:
    def run(path: Path) -> list[tuple[str, str]]:
        mixed = mixture(broken=(3, 8), quarantine=Quarantine(path))
        done = []
        for place in range(120):
            pick, made = mixed.pick(place), mixed[place]
            assert len(made) == pick.size
            planned = mixed.sources[pick.source].collection.name(pick.item)
            if planned not in ("sets 3", "sets 8"):
                assert made.info["set"] == planned
            else:
                done.append((planned, made.info["set"]))
        return done

    first = run(tmp_path / "first.jsonl")
    assert len(first) > 4
    assert all(used.startswith("sets") and used not in ("sets 3", "sets 8") for _, used in first)
    assert len({used for _, used in first}) > 2  # not one and the same neighbour
    lines = [json.loads(line) for line in (tmp_path / "first.jsonl").read_text().splitlines()]
    assert sorted(line["item"] for line in lines) == ["sets 3", "sets 8"]
    assert {line["reason"] for line in lines} == {"sets 3 is broken.", "sets 8 is broken."}
    assert run(tmp_path / "second.jsonl") == first


def test_too_many_broken_sets_stop_the_run() -> None:
    broken = mixture(broken=tuple(range(15)), quarantine=Quarantine(limit=4))
    with pytest.raises(DataError, match=r"5 items .* more than the limit of 4"):
        all(broken[place] for place in range(100))


def test_a_set_that_nothing_can_replace_stops_the_run() -> None:
    alone = Mixture([MixtureSource(Plain("few", [4, 1, 1], broken=(0,)), sizes=(4,))], 8)
    with pytest.raises(DataError, match="few 0 cannot be used, and few has no other set of 4 pictures"):
        all(alone[place] for place in range(3))
    both = Mixture([MixtureSource(Plain("bad", [1, 1], broken=(0, 1)))], 8)
    with pytest.raises(DataError, match="none of 100 sets can be used"):
        both[0]


def test_fingerprints_tell_orders_apart() -> None:
    def of(**changes: object) -> int:
        settings = {"probability": 1.0, "sizes": (2,), "count": 3, "resolution": 8, "seed": 0} | changes
        plain = Plain("x", [4] * settings["count"])
        source = MixtureSource(plain, settings["probability"], settings["sizes"])
        return Mixture([source], settings["resolution"], settings["seed"]).fingerprint

    changes = [{}, {"seed": 1}, {"count": 4}, {"sizes": (2, 3)}, {"resolution": 16}]
    assert len({of(**each) for each in changes}) == len(changes)
    assert of() == of()


def test_requests_that_make_no_order_are_refused() -> None:
    for probabilities in ([], [1, 0], [1, -1, 3], [1, 0.0004]):
        with pytest.raises(UsageError, match="probability"):
            Schedule(probabilities, 0)
    with pytest.raises(UsageError, match="at least 1"):
        MixtureSource(Plain("x", [1]), sizes=(0, 1))
    with pytest.raises(UsageError, match="x holds no sets"):
        MixtureSource(Plain("x", []))
    with pytest.raises(UsageError, match="10 sets cannot be split evenly over 4"):
        places(0, 10, 0, 4)
    with pytest.raises(IndexError):
        mixture().pick(-1)


def test_pictures_become_squares_of_the_resolution() -> None:
    class Wide(Plain):
        def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
            return ImageSet(
                (picture(1).resize((30, 20)),), ("a",), masks=(picture(2, mode="L").resize((30, 20)),)
            )

    made = Mixture([MixtureSource(Wide("wide", [1]))], resolution=16)[0]
    assert made.pictures[0].size == made.masks[0].size == (16, 16)
