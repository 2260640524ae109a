"""Sets encoded and decoded; faults of their files."""

import json

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.data.record import KINDS, LARGEST_SIDE, StoredSet, largest_set, stack
from jedi_diffusion.errors import DataError, PictureError, UsageError
from jedi_diffusion.sets import ImageSet
from tests.helpers.small_sets import encoded, picture, same, stored_set, subject_set


@pytest.mark.parametrize("masks", [False, True])
def test_a_set_survives_its_files(masks: bool) -> None:
    given = subject_set(1, 3, masks=masks)
    files = StoredSet.encode("key", given, "png").members()
    assert set(files) == {"png", "txt", "json"} | ({"mask.png"} if masks else set())
    assert json.loads(files["json"]) == {
        "source": "tests",
        "subject": "subject 1",
        "masks": "key.mask.png" if masks else None,
        "provenance": {"seed": 1},
    }
    again = StoredSet.from_members("key", files, "key").decode("key")
    assert same(again, given)


def test_chosen_pictures_come_in_the_order_asked_for() -> None:
    given = subject_set(1, 4, masks=True)
    some = StoredSet.encode("key", given, "png").decode("key", [3, 1])
    assert some.captions == (given.captions[3], given.captions[1])
    assert np.asarray(some.pictures[0]).tolist() == np.asarray(given.pictures[3]).tolist()
    assert np.asarray(some.masks[1]).tolist() == np.asarray(given.masks[1]).tolist()


def decoded(pictures: tuple[Image.Image, ...], kind: str, quality: int) -> tuple[np.ndarray, ...]:
    given = ImageSet(pictures, ("",) * len(pictures))
    again = StoredSet.encode("key", given, kind, quality=quality).decode("key")
    return tuple(np.asarray(each) for each in again.pictures)


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("side", [56, 64])
def test_a_picture_in_a_set_comes_back_as_it_would_alone(side: int, quality: int) -> None:
    """So neighbours have no influence on each other, beside the codec's own error on one picture."""
    colors = ((220, 30, 30), (30, 60, 220), (40, 200, 40))
    noise = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    pictures = (*(Image.new("RGB", (side, side), color) for color in colors), *map(Image.fromarray, noise))
    for kind in KINDS:
        alone = [decoded((each,), kind, quality)[0] for each in pictures]
        assert all(
            (one == other).all() for one, other in zip(decoded(pictures, kind, quality), alone, strict=True)
        )
        if kind != "jpg":
            assert all((one == np.asarray(other)).all() for one, other in zip(alone, pictures, strict=True))


@pytest.mark.parametrize("side", [60, 63, 65])
def test_pictures_that_would_share_blocks_of_a_jpg_are_refused(side: int) -> None:
    pictures = (picture(1, side), picture(2, side))
    with pytest.raises(
        UsageError, match=rf"{side} pixels cannot be stacked in a jpg.* take (56 or 64|64 or 72)"
    ):
        decoded(pictures, "jpg", 95)
    for kind in ("png", "webp"):
        assert (decoded(pictures, kind, 95)[1] == np.asarray(pictures[1])).all()


def test_a_set_as_large_as_a_file_holds_can_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [largest_set(2048, kind) for kind in KINDS] == [14, 14, 7]
    assert [largest_set(16, kind) for kind in KINDS] == [4093, 62_500, 1023]
    monkeypatch.setitem(LARGEST_SIDE, "jpg", 32 * 3)
    count = largest_set(32, "jpg")
    assert len(StoredSet.encode("key", subject_set(1, count, side=32)).decode("key")) == count == 3
    with pytest.raises(UsageError, match="4 pictures of 32 pixels"):
        StoredSet.encode("key", subject_set(1, 4, side=32))


def test_faults_are_named() -> None:
    good = stored_set(0, 3, masks=True).members()

    def fails(message: str, **changes: bytes | None) -> None:
        files = {name: data for name, data in {**good, **changes}.items() if data is not None}
        with pytest.raises(DataError, match=message):
            StoredSet.from_members("k", files, "k of x.tar")

    fails("k of x.tar holds 3 pictures but 2 captions", txt=b"a<|split|>b")
    fails("k of x.tar has no captions", txt=None)
    fails("not UTF-8", txt=b"\xff")
    fails("has 0 pictures", png=None)
    fails("has 2 pictures", jpg=b"x")
    fails("is not JSON", json=b"{")
    fails("record of k of x.tar is not a JSON object", json=b"[]")
    fails("provenance of k of x.tar is not a JSON object", json=b'{"provenance": "x"}')
    fails("should have masks", **{"mask.png": None})
    fails("is 8x12 pixels", png=encoded(picture(0).resize((8, 12))))
    with pytest.raises(PictureError, match=r"k of x\.tar"):
        StoredSet.from_members("k", {**good, "png": b"nothing"}, "k of x.tar")
    short = StoredSet.from_members("k", {**good, "mask.png": encoded(stack([picture(0, mode="L")]))}, "k")
    with pytest.raises(DataError, match="3 pictures but 1 masks"):
        short.decode("k")


def test_requests_that_cannot_be_stored_are_refused() -> None:
    with pytest.raises(UsageError, match="not as 'gif'"):
        StoredSet.encode("key", subject_set(0, 2), "gif")
    with pytest.raises(UsageError, match="16800 pixels high"):
        StoredSet.encode("key", ImageSet((picture(0, 2100),) * 8, ("",) * 8), "webp")
    with pytest.raises(UsageError, match="2 pictures but 1 captions"):
        ImageSet((picture(0), picture(1)), ("a",))
