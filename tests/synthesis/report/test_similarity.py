"""Table 8's means against plain loops, and near duplicates made on purpose."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.errors import ModelError
from jedi_diffusion.synthesis.report.similarity import SetFeatures
from tests.helpers.scoring_encoders import ColorEncoder

RNG = np.random.default_rng(0)


def scene(seed: int, size: int = 64) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)


class Given:
    """Answers with rows that were set beforehand, in order."""

    fingerprint = "given"
    image_column = "G"

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def images(self, pictures: list) -> np.ndarray:
        taken, self.rows = self.rows[: len(pictures)], self.rows[len(pictures) :]
        return taken


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_means_are_over_all_pairs() -> None:
    sizes, names, subjects = (2, 4, 3, 2, 1), "xxxyx", (0, 1, 1, 2, 3)
    rows = RNG.normal(size=(sum(sizes), 6)) + 0.5
    features = SetFeatures([Given(rows)])
    for number, (size, name, subject) in enumerate(zip(sizes, names, subjects, strict=True)):
        features.add(name, subject, [scene(10 * number + each) for each in range(size)])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    pairs = list(combinations(range(len(rows)), 2))
    inside = [cosine(rows[a], rows[b]) for a, b in pairs if owner[a] == owner[b]]
    between = [
        cosine(rows[a], rows[b])
        for a, b in pairs
        if names[owner[a]] == names[owner[b]] and subjects[owner[a]] != subjects[owner[b]]
    ]
    found = features.similarity("G")
    assert found.inside.mean == pytest.approx(np.mean(inside))
    assert found.inside.low <= found.inside.mean <= found.inside.high
    assert found.between.mean == pytest.approx(np.mean(between))
    assert features.inside("G")[3] == pytest.approx(cosine(rows[9], rows[10]))
    assert np.isnan(features.inside("G")[4])


def test_no_pairs_have_no_mean() -> None:
    features = SetFeatures([ColorEncoder()])
    assert features.similarity("COLOR-I") == (None, None)
    assert features.copies_inside() is None
    features.add("cup", 1, [scene(1)])
    assert features.similarity("COLOR-I") == (None, None)
    assert features.copies_across() is None


def test_encoders_without_a_column_are_not_asked() -> None:
    silent = ColorEncoder("silent", None)
    features = SetFeatures([silent, ColorEncoder()])
    features.add("cup", 1, [scene(1), scene(2)])
    assert silent.pictures == 0
    assert list(features.features) == ["COLOR-I"]


@pytest.mark.parametrize("rows", [np.zeros((2, 3)), np.full((2, 3), np.nan), np.ones(2), np.ones((3, 2))])
def test_rows_without_a_direction_are_refused(rows: np.ndarray) -> None:
    class Broken(Given):
        def images(self, pictures: list) -> np.ndarray:
            return self.rows

    with pytest.raises(ModelError, match="encoder given answered 2 pictures"):
        SetFeatures([Broken(rows)]).add("cup", 1, [scene(1), scene(2)])


def test_near_duplicates_are_found_inside_and_across_sets() -> None:
    features = SetFeatures([])
    moved = Image.new("RGB", (64, 64))
    moved.paste(scene(1), (4, 0))
    brighter = scene(3).point(lambda value: min(255, value + 8))
    features.add("cup", 1, [scene(1), moved, scene(2)])
    features.add("cup", 2, [scene(3), scene(4)])
    features.add("pot", 3, [scene(5), brighter])
    inside, across = features.copies_inside(), features.copies_across()
    assert inside.mean == pytest.approx(1 / 5)
    assert across.mean == pytest.approx(2 / 7)
    assert across.low < across.mean < across.high


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    features = SetFeatures([])
    for number in range(6):
        features.add("cup", number, [scene(number % 4), scene(100 + number)])
    whole = features.copies_across()
    assert whole.mean == pytest.approx(4 / 12)
    monkeypatch.setattr("jedi_diffusion.synthesis.report.similarity.BLOCK", 5)
    assert features.copies_across() == whole
