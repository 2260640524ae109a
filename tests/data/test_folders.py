"""Folders of pictures, one a subject: captions, masks, faults."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import encoded, picture, same, subject_set

from jedi_diffusion.data.folders import SubjectFolders, holds_subjects, words_of, write_subject
from jedi_diffusion.errors import DataError, PictureError


def test_captions_come_from_texts_records_and_names(tmp_path: Path) -> None:
    for folder in ("bear_plushie", "dog6", "empty"):
        (tmp_path / folder).mkdir()
    picture(0).save(tmp_path / "bear_plushie" / "a.png")
    picture(1).save(tmp_path / "bear_plushie" / "b.jpg")
    (tmp_path / "bear_plushie" / "b.txt").write_text("a bear in the wood\n")
    picture(2).save(tmp_path / "dog6" / "0.png")
    (tmp_path / "dog6" / "set.json").write_text(json.dumps({"captions": ["a dog in the snow"]}))
    found = SubjectFolders(tmp_path)
    assert [found.size(item) for item in range(len(found))] == [2, 1]
    bear, dog = (found.pictures(item, range(found.size(item))) for item in (0, 1))
    assert bear.captions == ("bear plushie", "a bear in the wood")
    assert dog.captions == ("a dog in the snow",)
    assert (bear.subject, dog.subject) == ("bear plushie", "dog")
    assert bear.info == {"folder": "bear_plushie", "files": ["a.png", "b.jpg"]}
    assert found.pictures(0, [1]).captions == ("a bear in the wood",)


@pytest.mark.parametrize(
    ("name", "words"),
    [("bear_plushie", "bear plushie"), ("cat2", "cat"), ("red-fox_07", "red fox"), ("42", "42")],
)
def test_names_become_words(name: str, words: str) -> None:
    assert words_of(name) == words


@pytest.mark.parametrize("masks", [False, True])
def test_what_is_written_is_read_again(tmp_path: Path, masks: bool) -> None:
    given = subject_set(1, 12, masks=masks)
    write_subject(tmp_path / "subject", given)
    found = SubjectFolders(tmp_path)
    again = found.pictures(0, range(12))
    assert again.captions == given.captions
    for one, other in zip(
        (*again.pictures, *(again.masks or ())), (*given.pictures, *(given.masks or ())), strict=True
    ):
        assert np.asarray(one).tolist() == np.asarray(other).tolist()
    (tmp_path / "subject" / "03.mask.png").unlink(missing_ok=True)
    assert SubjectFolders(tmp_path).pictures(0, [0]).masks is None
    drawn = found.read(0, 3, np.random.default_rng(1)) if not masks else None
    assert drawn is None or len(set(drawn.captions)) == 3


def test_large_jpegs_come_at_a_reduced_scale(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.jpg").write_bytes(encoded(Image.new("RGB", (400, 300)), "JPEG"))
    assert SubjectFolders(tmp_path, decode_size=70).pictures(0, [0]).pictures[0].size == (100, 75)


def test_what_a_place_is(tmp_path: Path) -> None:
    write_subject(tmp_path / "photos" / "a", subject_set(1, 1))
    assert holds_subjects(str(tmp_path / "photos"))
    assert not holds_subjects(str(tmp_path / "photos" / "a"))
    assert not holds_subjects(str(tmp_path))
    assert not holds_subjects("s3://bucket/x")
    picture(0).save(tmp_path / "photos" / "sheet.png")  # as `jedi toybox` puts one beside its sets
    assert holds_subjects(str(tmp_path / "photos"))
    (tmp_path / "photos" / "sheet.txt").touch()
    assert not holds_subjects(str(tmp_path / "photos"))
    (tmp_path / "photos" / "sheet.txt").unlink()
    (tmp_path / "photos" / "0.tar").touch()
    assert not holds_subjects(str(tmp_path / "photos"))


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder"):
        SubjectFolders(tmp_path / "none")
    with pytest.raises(DataError, match="no subfolders with pictures"):
        SubjectFolders(tmp_path)
    write_subject(tmp_path / "a", subject_set(1, 2))
    found = SubjectFolders(tmp_path)
    (tmp_path / "a" / "1.png").write_bytes(b"x")
    with pytest.raises(PictureError, match=r"1\.png"):
        found.pictures(0, [1])
    assert same(found.pictures(0, [0]), found.pictures(0, [0]))
    (tmp_path / "a" / "0.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"captions of .*a cannot be read"):
        found.pictures(0, [0])
    (tmp_path / "a" / "0.txt").unlink()
    for record in ("{", "{}", "[]", '{"captions": ["one"]}', '{"captions": "ab"}'):
        (tmp_path / "a" / "set.json").write_text(record)
        with pytest.raises(DataError, match=r"set\.json does not list"):
            found.pictures(0, [0])
