"""Rendered views: captions, backgrounds drawn by the generator alone, masks from alpha."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.data.multiview import MultiviewAssets
from jedi_diffusion.errors import DataError, PictureError
from tests.helpers.small_sets import picture

WITH_PHOTO = 2
"""A seed of which the first of one view gets a photographed background."""


def views(folder: Path, caption_beside: bool = False) -> Path:
    """Three assets of 1, 2, 3 views: a red square in the middle of nothing."""
    for asset in range(3):
        home = folder / "assets" / f"asset{asset}"
        home.mkdir(parents=True)
        text = home.with_suffix(".txt") if caption_beside else home / "caption.txt"
        text.write_text(f"a red thing {asset}\n")
        for view in range(asset + 1):
            layer = np.zeros((16, 16, 4), np.uint8)
            layer[4:12, 4:12] = (255, 10 * view, 0, 255)
            Image.fromarray(layer).save(home / f"{view:03d}.png")
        Image.fromarray(layer).getchannel("A").save(home / "000.mask.png")  # no view
    return folder / "assets"


@pytest.mark.parametrize("beside", [False, True])
def test_views_are_put_on_plain_grounds(tmp_path: Path, beside: bool) -> None:
    assets = MultiviewAssets(str(views(tmp_path, beside)))
    assert [assets.size(item) for item in range(len(assets))] == [1, 2, 3]
    colors = set()
    for seed in range(10):
        given = assets.read(2, 2, np.random.default_rng(seed))
        assert given.captions == ("a red thing 2",) * 2
        for image, mask, name in zip(given.pictures, given.masks, given.info["views"], strict=True):
            values, inside = np.asarray(image), np.asarray(mask) == 255
            assert inside.sum() == 64
            assert (values[inside] == (255, 10 * int(name[:3]), 0)).all()
            (color,) = {tuple(value) for value in values[~inside].tolist()}
            colors.add(color)
        again = assets.read(2, 2, np.random.default_rng(seed))
        assert [np.asarray(each).tolist() for each in again.pictures] == [
            np.asarray(each).tolist() for each in given.pictures
        ]
    assert len(colors) == 20


def test_photographs_are_grounds_too(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    blue = np.zeros((40, 90, 3), np.uint8)
    blue[..., 2] = np.arange(90)[None] + 100  # changes from left to right: no plain ground looks like this
    Image.fromarray(blue).save(tmp_path / "photos" / "sky.png")
    assets = MultiviewAssets(str(views(tmp_path)), backgrounds=str(tmp_path / "photos"))
    photographed, lefts = 0, set()
    for seed in range(40):
        values = np.asarray(assets.read(0, 1, np.random.default_rng(seed)).pictures[0])
        if len(np.unique(values[0], axis=0)) > 1:
            photographed += 1
            lefts.add(int(values[0, 0, 2]))
            assert values[0, 0, 0] == 0
    assert 10 <= photographed <= 30
    assert len(lefts) > 5  # another part of the photo each time


def test_a_photograph_is_drawn_and_cut_by_the_generator(tmp_path: Path) -> None:
    """The draws written out: the view, whether there is a photo, a colour, which photo, and its part."""
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (3, 30, 50, 3), dtype=np.uint8)
    photos = [Image.fromarray(each) for each in noise]
    for number, photo in enumerate(photos):
        photo.save(tmp_path / "photos" / f"{number}.png")
    assets = MultiviewAssets(str(views(tmp_path)), backgrounds=str(tmp_path / "photos"))
    seen = set()
    for seed in range(30):
        generator = np.random.default_rng(seed)
        generator.permutation(1)
        is_photo = generator.random() < 0.5
        color = generator.integers(0, 256, 3)
        which, left, _ = generator.random(3)
        read = assets.read(0, 1, np.random.default_rng(seed))
        found = np.asarray(read.pictures[0])
        assert read.source == str(tmp_path / "assets")
        if not is_photo:
            assert (found[0, 0] == color).all()
            continue
        seen.add(number := int(3 * which))
        side = 30  # of the largest square in the photo, which lies `left` of the way to the right
        box = ((50 - side) * left, 0.0, (50 - side) * left + side, side)
        expected = np.asarray(photos[number].resize((16, 16), Image.Resampling.LANCZOS, box))
        assert np.abs(found[0].astype(int) - expected[0]).max() <= 1
    assert seen == {0, 1, 2}


def test_half_transparent_edges_are_mixed(tmp_path: Path) -> None:
    home = tmp_path / "a"
    home.mkdir()
    (home / "a.txt").write_text("x")
    Image.new("RGBA", (4, 4), (200, 100, 0, 128)).save(home / "0.png")
    found = MultiviewAssets(str(tmp_path)).read(0, 1, np.random.default_rng(1))
    generator = np.random.default_rng(1)
    generator.permutation(1)
    generator.random()
    ground = generator.integers(0, 256, 3)
    expected = (np.array([200, 100, 0]) * 128 + ground * 127) / 255
    assert np.abs(np.asarray(found.pictures[0])[0, 0] - expected).max() <= 1


def test_opaque_views_have_no_masks(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.txt").write_text("x")
    picture(0).save(tmp_path / "a" / "0.png")
    given = MultiviewAssets(str(tmp_path)).read(0, 1, np.random.default_rng(0))
    assert given.masks is None
    assert np.asarray(given.pictures[0]).tolist() == np.asarray(picture(0)).tolist()


def test_faults_are_named(tmp_path: Path) -> None:
    home = views(tmp_path)
    (home / "asset1" / "caption.txt").unlink()
    (home / "asset2" / "more.txt").write_text("another")
    (home / "asset0" / "caption.txt").write_bytes(b"\xff")
    assets = MultiviewAssets(str(home))
    for item, message in enumerate(("not UTF-8", "asset1 has 0 text files", "asset2 has 2 text files")):
        with pytest.raises(DataError, match=message):
            assets.read(item, 1, np.random.default_rng(0))
    (home / "asset0" / "caption.txt").write_text("a thing")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sky.png").write_bytes(b"x")
    with pytest.raises(PictureError, match=r"broken/sky\.png"):
        MultiviewAssets(str(home), str(tmp_path / "broken")).read(0, 1, np.random.default_rng(WITH_PHOTO))
    (home / "asset0" / "000.png").write_bytes(b"x")
    with pytest.raises(PictureError, match=r"asset0/000\.png"):
        assets.read(0, 1, np.random.default_rng(0))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no folders of pictures"):
        MultiviewAssets(str(tmp_path / "empty"))
    with pytest.raises(DataError, match="empty holds no pictures"):
        MultiviewAssets(str(home), backgrounds=str(tmp_path / "empty"))
