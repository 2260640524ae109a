"""Features of files: the cache, its faults, and pictures that cannot be read."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.errors import ModelError, PictureError
from jedi_diffusion.evaluation.cache import FeatureCache, key_of
from jedi_diffusion.evaluation.encoders import Thumbnails
from jedi_diffusion.evaluation.features import FeatureReader, Item
from tests.helpers.scoring_encoders import ColorEncoder


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = []
    for number in range(70):
        paths.append(folder / f"{number}.png")
        Image.new("RGB", (8, 8), (number * 3, 100, 255 - number)).save(paths[-1])
    return paths


def test_features_come_in_order_and_are_made_once(files: list[Path], tmp_path: Path) -> None:
    encoder, thumbnails = ColorEncoder(), Thumbnails()
    items = [Item(path) for path in files] + [Item(files[3])]
    reader = FeatureReader([encoder, thumbnails], tmp_path / "cache")
    found = reader.read(items, [encoder, thumbnails])
    expected = ColorEncoder().images([Image.open(item.path) for item in items])
    assert found["color"] == pytest.approx(expected)
    assert found["thumbnail"].shape == (71, 3 * 32 * 32)
    assert encoder.pictures == 70
    later = ColorEncoder()
    again = FeatureReader([later], tmp_path / "cache")
    assert np.array_equal(again.read(items, [later])["color"], found["color"])
    assert again.texts(["red", "blue", "red"])["color"].keys() == {"red", "blue"}
    assert again.texts(["red"])["color"]["red"].tolist() == [1, 0, 0]
    assert (later.pictures, later.words) == (0, 2)


def test_the_same_content_under_another_name_is_known(files: list[Path], tmp_path: Path) -> None:
    encoder = ColorEncoder()
    reader = FeatureReader([encoder], tmp_path / "cache")
    reader.read([Item(files[0])], [encoder])
    moved = tmp_path / "moved.png"
    moved.write_bytes(files[0].read_bytes())
    reader.read([Item(moved)], [encoder])
    assert encoder.pictures == 1


def test_half_written_entries_are_made_again(files: list[Path], tmp_path: Path, caplog) -> None:
    encoder = ColorEncoder()
    items = [Item(path) for path in files]
    first = FeatureReader([encoder], tmp_path / "cache").read(items, [encoder])["color"]
    entries = sorted((tmp_path / "cache" / "color").glob("*.safetensors"))
    assert len(entries) == 3
    entries[0].write_bytes(entries[0].read_bytes()[:-5])
    entries[1].write_bytes(b"")
    (tmp_path / "cache" / "color" / ".left.over").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        reader = FeatureReader([encoder], tmp_path / "cache")
    assert caplog.text.count("is damaged") == 2
    assert np.array_equal(reader.read(items, [encoder])["color"], first)
    assert 70 < encoder.pictures <= 70 + 64
    caplog.clear()
    FeatureReader([encoder], tmp_path / "cache")
    assert not caplog.text


def test_another_encoder_of_the_same_name_is_refused(files: list[Path], tmp_path: Path) -> None:
    encoder = ColorEncoder()
    FeatureReader([encoder], tmp_path / "cache").read([Item(files[0])], [encoder])
    with pytest.raises(ModelError, match=r"cache.color holds features of another encoder color"):
        FeatureReader([ColorEncoder(fingerprint="2")], tmp_path / "cache")
    (tmp_path / "cache" / "color" / "encoder.json").unlink()
    with pytest.raises(ModelError, match="fingerprint unknown"):
        FeatureCache(tmp_path / "cache", encoder)


def test_keys_tell_apart_what_joins_to_the_same_bytes() -> None:
    assert key_of(b"ab", b"c") != key_of(b"a", b"bc")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-25], "cannot be read"),
        (lambda data: b"", "is empty"),
        (lambda data: b"text" * 20, "is not a picture"),
    ],
)
def test_a_damaged_picture_is_named(files: list[Path], tmp_path: Path, damage, message: str) -> None:
    bad = files[40]
    bad.write_bytes(damage(bad.read_bytes()))
    encoder = ColorEncoder()
    reader = FeatureReader([encoder], tmp_path / "cache")
    with pytest.raises(PictureError, match=f"40.png.* {message}"):
        reader.read([Item(path) for path in files], [encoder])
    bad.unlink()
    with pytest.raises(PictureError, match=r"40.png cannot be read: No such file"):
        reader.read([Item(path) for path in files], [encoder])


def two_colors(folder: Path) -> tuple[Path, Path]:
    """A picture, red on the left and green on the right, and a mask of its left half."""
    picture, mask = Image.new("RGB", (8, 4), (255, 0, 0)), Image.new("L", (8, 4), 255)
    picture.paste((0, 255, 0), (4, 0, 8, 4))
    mask.paste(0, (4, 0, 8, 4))
    picture.save(folder / "p.png")
    mask.save(folder / "p.mask.png")
    return folder / "p.png", folder / "p.mask.png"


def test_cut_outs_are_white_outside_the_mask(tmp_path: Path) -> None:
    picture, mask = two_colors(tmp_path)
    encoder = ColorEncoder()
    reader = FeatureReader([encoder], tmp_path / "cache")
    rows = reader.read([Item(picture), Item(picture, mask=mask)], [encoder])["color"]
    cut = Image.new("RGB", (8, 4), (255, 255, 255))
    cut.paste((255, 0, 0), (0, 0, 4, 4))
    assert rows == pytest.approx(ColorEncoder().images([Image.open(picture), cut]))


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    picture, mask = two_colors(tmp_path)
    Image.new("L", (4, 4)).save(mask)
    encoder = ColorEncoder()
    with pytest.raises(PictureError, match=r"p\.mask\.png has 4x4 pixels, its picture 8x4"):
        FeatureReader([encoder], tmp_path / "cache").read([Item(picture, mask=mask)], [encoder])


class Finder:
    """Finds what is of the named colour."""

    fingerprint = "finder"

    def find(self, pictures, nouns):
        channels = [ColorEncoder.colors[noun].index(1) for noun in nouns]
        return [
            np.asarray(picture)[:, :, channel] > 200
            for picture, channel in zip(pictures, channels, strict=True)
        ]


def test_subjects_are_found_by_name_and_absent_ones_are_nan(tmp_path: Path) -> None:
    picture, _ = two_colors(tmp_path)
    encoder = ColorEncoder()
    reader = FeatureReader([encoder], tmp_path / "cache", Finder())
    items = [Item(picture, noun="green"), Item(picture, noun="blue"), Item(picture, noun="red")]
    rows = reader.read(items, [encoder])["color"]
    assert np.isnan(rows[1]).all()
    assert np.isfinite(rows[[0, 2]]).all()
    assert not np.allclose(rows[0], rows[2])
    later = ColorEncoder()
    again = FeatureReader([later], tmp_path / "cache", Finder())
    assert np.array_equal(again.read(items, [later])["color"], rows, equal_nan=True)
    assert later.pictures == 0
