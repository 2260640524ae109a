"""Places and classes as judges: what is learnt, what texts name, what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from jedi_diffusion.errors import DataError, ModelError
from jedi_diffusion.evaluation.encoders import TextEncoder
from jedi_diffusion.evaluation.metrics import text_sums
from jedi_diffusion.pictures import fit_square
from jedi_diffusion.vision.classes import ClassJudge
from jedi_diffusion.vision.lite import LiteEncoder
from jedi_diffusion.vision.places import (
    Examples,
    PlaceClassifier,
    PlaceJudge,
    place_in,
    quality,
    train_places,
)
from jedi_toybox import world
from jedi_toybox.places import place_pictures
from tests.helpers.small_lite import small_lite0

package = pytest.fixture(small_lite0)
PLACES = ("in a forest", "in a forest at night", "on the beach")


def examples(count: int, seed: int, apart: float = 3.0) -> Examples:
    """Features around a point for each place, in units that differ by feature."""
    centres = np.random.default_rng(0).normal(size=(len(PLACES), 8))
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(PLACES)
    rows = (apart * centres[labels] + rng.normal(size=(count, 8))) * np.logspace(-2, 2, 8)
    return Examples(rows.astype(np.float32), labels)


def test_places_are_learnt_and_kept(tmp_path) -> None:
    train, test = examples(300, seed=1), examples(300, seed=2)
    fitted = train_places(PLACES, "lite0", train, test, {"data": "made up"})
    held_out = quality(fitted, test)
    assert held_out.accuracy > 0.95
    assert 0.9 < held_out.probability <= held_out.accuracy + 0.05
    assert fitted.record == {"data": "made up", "trained_on": 300, "held_out": held_out._asdict()}
    shuffled = Examples(train.rows, np.random.default_rng(3).permutation(train.labels))
    assert quality(train_places(PLACES, "lite0", shuffled, test, {}), test).accuracy < 0.6
    fitted.save(tmp_path / "new" / "places.safetensors")
    again = PlaceClassifier.load(tmp_path / "new" / "places.safetensors")
    assert (again.places, again.encoder, again.record) == (PLACES, "lite0", fitted.record)
    assert again.probabilities(test.rows) == pytest.approx(fitted.probabilities(test.rows), abs=0.02)


def test_a_place_without_pictures_is_named() -> None:
    whole = examples(30, seed=1)
    part = Examples(whole.rows[whole.labels < 2], whole.labels[whole.labels < 2])
    with pytest.raises(DataError, match="no pictures to test with for the place 'on the beach'"):
        train_places(PLACES, "lite0", whole, part, {})


def test_other_files_are_no_place_classifiers(tmp_path) -> None:
    save_file({"weight": torch.zeros(2, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no place classifier"):
        PlaceClassifier.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a dog in a forest", 0),
        ("A dog in a Forest at night", 1),
        ("a dog on the beach.", 2),
        ("a dog in a forestland", None),
        ("a dog", None),
    ],
)
def test_the_longest_place_of_a_text_counts(text: str, place: int | None) -> None:
    assert place_in(text, PLACES) == place


def test_judges_score_what_a_text_names_and_nothing_else(package) -> None:
    encoder = LiteEncoder("lite0")
    classifier = PlaceClassifier(PLACES, "lite0", torch.randn(3, 1280), torch.zeros(3))
    pictures = [Image.new("RGB", (40, 40), color) for color in ("red", "green", "blue")]
    texts = ["a dog in a forest", "a stuffed animal", "a can on the beach"]
    for judge, known in ((PlaceJudge(classifier, encoder), [1, 0, 1]), (ClassJudge(encoder), [1, 1, 0])):
        assert isinstance(judge, TextEncoder)
        rows, words = judge.images(pictures), judge.texts(texts)
        assert rows.sum(1) == pytest.approx(1, abs=1e-5)
        sums = text_sums(rows, words)
        assert sums.pairs.tolist() == known
        assert (sums.total[np.array(known) == 0] == 0).all()
    assert ClassJudge(encoder).texts(texts)[:2].sum(1).tolist() == [118, 1]  # breeds of dogs; teddy bear
    assert ClassJudge(encoder).texts(["a hotdog", "a cat and a dog"]).sum(1).tolist() == [0, 5]
    assert PlaceJudge(classifier, encoder).fingerprint != encoder.fingerprint
    other = PlaceClassifier(PLACES, "lite2", torch.randn(3, 1280), torch.zeros(3))
    with pytest.raises(ModelError, match="reads lite2, not lite0"):
        PlaceJudge(other, encoder)


def test_judges_that_share_an_encoder_read_a_picture_once(package, monkeypatch) -> None:
    encoder = LiteEncoder("lite0")
    pictures = [Image.new("RGB", (40, 40), color) for color in ("red", "green")]
    first = encoder.images(pictures)
    monkeypatch.setattr("jedi_diffusion.vision.lite.rows_of", pytest.fail)
    assert ClassJudge(encoder).images(pictures).shape == (2, 1000)
    assert encoder.images(pictures) == pytest.approx(first)
    monkeypatch.undo()


def test_large_photos_and_small_pictures_are_compared_at_one_size(package) -> None:
    cells = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    large = Image.fromarray(cells).resize((640, 480), Image.Resampling.NEAREST)
    plain, sized = LiteEncoder("lite0"), LiteEncoder("lite0", side=16)
    one, other = sized.images([large, fit_square(large, 16)])
    assert one == pytest.approx(other, abs=1e-6)
    one, other = plain.images([large, fit_square(large, 16)])
    assert one != pytest.approx(other, abs=1e-3)
    assert (sized.name, sized.image_column) == ("lite0-16", "lite0")
    assert sized.fingerprint != plain.fingerprint


def test_pictures_of_the_toybox_have_their_scenes() -> None:
    plain = place_pictures("scorer", 1, 16)
    varied = place_pictures("scorer", 1, 16, varied=True)
    assert plain.labels == list(range(len(world.SCENES)))
    same = [
        np.array_equal(np.asarray(one), np.asarray(other))
        for one, other in zip(plain.pictures, varied.pictures, strict=True)
    ]
    assert len(same) - sum(same) == len(same) // 2
