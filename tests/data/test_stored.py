"""Sets and single pictures from shards."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jedi_diffusion.data.mixture import Mixture, MixtureSource
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.shards import build_index, save_index
from jedi_diffusion.data.stored import SinglePictures, StoredSets
from jedi_diffusion.errors import DataError, PictureError
from tests.helpers.small_sets import SIZES, encoded, picture, same, stored_set, subject_set, write_shards


def test_sets_give_some_of_their_pictures(tmp_path: Path) -> None:
    write_shards(tmp_path)
    sets = StoredSets(str(tmp_path))
    assert [sets.size(item) for item in range(len(sets))] == list(SIZES)
    whole = subject_set(5, 5)
    drawn = set()
    for seed in range(20):
        some = sets.read(5, 3, np.random.default_rng(seed))
        assert len(some) == len(set(some.captions)) == 3
        for image, caption in zip(some.pictures, some.captions, strict=True):
            number = whole.captions.index(caption)
            assert np.asarray(image).tolist() == np.asarray(whole.pictures[number]).tolist()
        drawn |= set(some.captions)
        again = sets.read(5, 3, np.random.default_rng(seed))
        assert again.captions == some.captions
    assert drawn == set(whole.captions)


def singles(path: Path) -> str:
    """As img2dataset writes them, with a broken picture, one without caption, and broken bytes later."""
    wide = picture(1, 64).resize((96, 64))
    record = json.dumps({"url": "https://x/1.jpg", "key": "000000001", "status": "success"}).encode()
    files = {
        "000000000.jpg": encoded(wide, "JPEG", quality=95),
        "000000000.txt": b"a wide field <|split|> of colours\n",
        "000000000.json": record,
        "000000001.jpg": b"\xff\xd8\xff broken",
        "000000001.txt": b"broken",
        "000000002.jpg": encoded(wide.convert("CMYK"), "JPEG"),
        "000000003.jpg": encoded(wide.resize((192, 128)), "JPEG"),
        "000000003.txt": b"large",
    }
    with tarfile.open(path / "00000.tar", "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    save_index(path / "00000.tar", build_index(path / "00000.tar"))
    return str(path / "00000.tar")


def single(path: Path, files: dict[str, bytes]) -> str:
    """A tar of one sample."""
    with tarfile.open(path / "one.tar", "w") as archive:
        for ending, data in files.items():
            entry = tarfile.TarInfo(f"0000000004.{ending}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    save_index(path / "one.tar", build_index(path / "one.tar"))
    return str(path / "one.tar")


def test_single_pictures_are_sets_of_one(tmp_path: Path) -> None:
    found = SinglePictures(singles(tmp_path), decode_size=64)
    generator = np.random.default_rng(0)
    assert [found.size(item) for item in range(len(found))] == [1] * 4
    first = found.read(0, 1, generator)
    assert first.captions == ("a wide field <|split|> of colours",)
    assert first.info == {"url": "https://x/1.jpg", "key": "000000001"}
    assert first.pictures[0].size == (96, 64)
    assert first.source == str(tmp_path / "00000.tar")
    assert found.read(3, 1, generator).pictures[0].size == (96, 64)  # decoded at half its scale
    for extra, fault in (
        ({"png": b""}, "4 of .* has 2 pictures"),
        ({"json": b"{"}, "record of 0000000004 of .* JSON"),
    ):
        with pytest.raises(DataError, match=fault):
            SinglePictures(single(tmp_path, {"jpg": b"x", "txt": b"x", **extra})).read(0, 1, generator)
    with pytest.raises(PictureError, match="000000001 of"):
        found.read(1, 1, generator)
    with pytest.raises(DataError, match=r"000000002 of .* has no captions"):
        found.read(2, 1, generator)


def test_broken_samples_are_quarantined_in_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    source = MixtureSource(SinglePictures(singles(tmp_path), decode_size=64))
    mixture = Mixture([source], resolution=32, quarantine=Quarantine(path))
    captions = [mixture[place].captions[0] for place in range(12)]
    assert set(captions) == {"a wide field <|split|> of colours", "large"}
    reasons = {line["item"][:9]: line["reason"] for line in map(json.loads, path.read_text().splitlines())}
    assert set(reasons) == {"000000001", "000000002"}
    assert "has no captions" in reasons["000000002"]


def test_a_folder_in_the_papers_format_is_a_source_too(tmp_path: Path) -> None:
    for seed, count in enumerate((2, 3)):
        for ending, data in stored_set(seed, count, masks=seed == 1).members().items():
            name = ending.upper() if ending == "mask.png" else ending
            (tmp_path / f"{seed:05d}.{name}").write_bytes(data)
    (tmp_path / "lost.png").write_bytes(encoded(picture(1)))
    sets = StoredSets(str(tmp_path))
    assert [sets.size(item) for item in range(len(sets))] == [2, 3, 1]
    for item, count in enumerate((2, 3)):
        decoded = sets.stored(item).decode(sets.name(item))
        assert same(decoded, subject_set(item, count, masks=item == 1))
    (tmp_path / "00000.png").write_bytes(stored_set(0, 2).stacked[:-30])
    with pytest.raises(PictureError, match=r"00000\.png"):
        sets.read(0, 1, np.random.default_rng(0))
    (tmp_path / "00000.png").write_bytes(stored_set(0, 2).stacked)
    with pytest.raises(DataError, match=r"lost\.png has no captions"):
        sets.read(2, 1, np.random.default_rng(0))
    for ending, data in stored_set(2, 2).members().items():  # the picture's ending is what tells its format
        (tmp_path / f"v1.0 sheet.{ending.replace('png', 'JPEG')}").write_bytes(data)
    sets = StoredSets(str(tmp_path))
    assert [sets.stored(item).key for item in (0, 3)] == ["00000", "v1.0 sheet"]
    assert [sets.size(item) for item in (0, 3)] == [2, 2]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no pictures"):
        StoredSets(str(tmp_path / "empty"))
