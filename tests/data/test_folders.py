"""Folders of pictures, one a subject: captions, masks, faults."""

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.data.folders import (
    SubjectFolders,
    UnusableFileError,
    holds_subjects,
    words_of,
    write_subject,
)
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.errors import DataError
from tests.helpers.small_sets import encoded, picture, same, stored_set, subject_set


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
    [
        ("bear_plushie", "bear plushie"),
        ("cat2", "cat"),
        ("red-fox_07", "red fox"),
        ("42", "42"),
        ("10_sks dog", "sks dog"),
        ("3_4", "3"),
        ("00000-robot", "00000 robot"),
    ],
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


def test_what_a_place_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_subject(tmp_path / "photos" / "a", subject_set(1, 1))
    assert holds_subjects(str(tmp_path / "photos"))
    assert holds_subjects(str(tmp_path / "photos" / "a"))
    assert not holds_subjects(str(tmp_path))
    write_subject(tmp_path / "s3:" / "bucket" / "x" / "a", subject_set(1, 1))
    monkeypatch.chdir(tmp_path)
    assert holds_subjects("s3:/bucket/x")
    assert not holds_subjects("s3://bucket/x")  # an address, whatever lies here
    picture(0).save(tmp_path / "photos" / "sheet.png")  # as `jedi toybox` puts one beside its sets
    assert holds_subjects(str(tmp_path / "photos"))
    (tmp_path / "photos" / "sheet.txt").write_text("one<|split|>two")
    assert not holds_subjects(str(tmp_path / "photos"))
    (tmp_path / "photos" / "sheet.txt").write_text("one")
    assert holds_subjects(str(tmp_path / "photos"))
    (tmp_path / "photos" / "sheet.json").write_bytes(stored_set(1, 1).members()["json"])
    assert not holds_subjects(str(tmp_path / "photos"))
    (tmp_path / "photos" / "sheet.json").write_text('{"source": "", "subject": "", "masks": null}')
    assert not holds_subjects(str(tmp_path / "photos"))
    (tmp_path / "photos" / "sheet.json").write_text('{"width": 8}')  # of another program
    assert holds_subjects(str(tmp_path / "photos"))
    (tmp_path / "photos" / "old.JPEG").write_bytes(encoded(picture(0), "JPEG"))
    (tmp_path / "photos" / "old.txt").write_text("one<|split|>two")
    assert not holds_subjects(str(tmp_path / "photos"))
    (tmp_path / "photos" / "old.txt").unlink()
    assert holds_subjects(str(tmp_path / "photos"))
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
    with pytest.raises(UnusableFileError, match=r"1\.png") as fault:
        found.pictures(0, [1])
    assert fault.value.file == tmp_path / "a" / "1.png"
    assert same(found.pictures(0, [0]), found.pictures(0, [0]))
    (tmp_path / "a" / "0.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(UnusableFileError, match=r"a/0\.txt is not UTF-8 text \(byte 0xe9 at place 3\)"):
        found.pictures(0, [0])
    (tmp_path / "a" / "0.txt").write_text("a <|split|> b")
    with pytest.raises(UnusableFileError, match=r"a/0\.txt holds <\|split\|>"):
        found.pictures(0, [0])
    (tmp_path / "a" / "0.txt").unlink()
    for record in ("{", "{}", "[]", '{"captions": ["one"]}', '{"captions": "ab"}'):
        (tmp_path / "a" / "set.json").write_text(record)
        with pytest.raises(UnusableFileError, match=r"set\.json does not list") as fault:
            SubjectFolders(tmp_path).pictures(0, [0])
        assert fault.value.file == tmp_path / "a" / "set.json"
    for captions, reason in (("café".encode("latin-1"), "is not UTF-8"), (b"a<|split|>b", r"holds <\|split")):
        (tmp_path / "a" / "set.json").write_bytes(b'{"captions": ["' + captions + b'", "two"]}')
        with pytest.raises(UnusableFileError, match=rf"set\.json {reason}") as fault:
            SubjectFolders(tmp_path).pictures(0, [0])
        assert fault.value.file == tmp_path / "a" / "set.json"


def test_one_bad_file_does_not_cost_a_training_its_subject(tmp_path: Path) -> None:
    write_subject(tmp_path / "dog", subject_set(1, 4))
    (tmp_path / "dog" / "1.txt").write_bytes(b"\xff")
    quarantine = Quarantine()
    found = SubjectFolders(tmp_path, quarantine=quarantine)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(4).tolist()
        read = found.read(0, 3, np.random.default_rng(seed))
        assert read.captions == tuple(f"subject 1, picture {number}" for number in order if number != 1)
    ((item, reason),) = quarantine.reasons().items()
    assert item == (str(tmp_path), str(tmp_path / "dog" / "1.txt"))
    assert reason.startswith(f"{tmp_path}/dog/1.txt is not UTF-8")
    with pytest.raises(
        DataError, match=r"3 of 4 pictures can be used, fewer than the 4 .*1\.txt is not UTF-8"
    ):
        found.read(0, 4, np.random.default_rng(0))
    with pytest.raises(UnusableFileError):
        SubjectFolders(tmp_path).read(0, 4, np.random.default_rng(0))


def test_hidden_files_are_no_pictures_and_hidden_folders_no_subjects(tmp_path: Path) -> None:
    for folder in ("dog", ".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        write_subject(tmp_path / folder, subject_set(1, 2))
    (tmp_path / "dog" / "._0.png").write_bytes(b"\0\5\x16\7Mac OS X")
    found = SubjectFolders(tmp_path)
    assert (len(found), found.size(0), found.left_out()) == (1, 2, [])


def test_what_lies_where_it_is_not_read_is_named(tmp_path: Path) -> None:
    write_subject(tmp_path / "dog", subject_set(1, 2))
    for place in ("more", "more/deep", "more/.thumbnails"):
        write_subject(tmp_path / "dog" / place, subject_set(2, 1))
    (tmp_path / "raw").mkdir()
    loose = ("top.jpg", "dog/9.txt", "dog/8.caption", "dog/9.mask.png", "dog/7.dng", "raw/1.CR2")
    for name in (*loose, "dog/more/2.png", "dog/more/10.DNG"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "README.txt").write_text("none of ours")
    told = {str(each.file.relative_to(tmp_path)): each.reason for each in SubjectFolders(tmp_path).left_out()}
    names = [
        "top.jpg",
        "dog/7.dng",
        "dog/8.caption",
        "dog/9.txt",
        "dog/9.mask.png",
        "dog/more/0.png",
        "dog/more/2.png",
        "dog/more/10.DNG",
        "dog/more/deep/0.png",
        "raw/1.CR2",
    ]
    assert list(told) == names
    assert all(str(tmp_path / name) in reason for name, reason in told.items())
    (tmp_path / "dog" / "more").rename(tmp_path / "more")
    flat = [
        str(each.file.relative_to(tmp_path / "dog")) for each in SubjectFolders(tmp_path / "dog").left_out()
    ]
    assert flat == ["7.dng", "8.caption", "9.txt", "9.mask.png"]


@pytest.mark.parametrize("ending", [".txt", ".TXT", ".caption"])
def test_composed_and_decomposed_names_match(tmp_path: Path, ending: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    (tmp_path / "dog").mkdir()
    picture(0).save(tmp_path / "dog" / f"{decomposed}.png")
    picture(1, mode="L").save(tmp_path / "dog" / f"{composed}.mask.png")
    (tmp_path / "dog" / f"{composed}{ending}").write_text("a dog in the café", encoding="utf-8")
    read = SubjectFolders(tmp_path).pictures(0, [0])
    assert (read.captions, read.source) == (("a dog in the café",), str(tmp_path))
    (tmp_path / "dog" / f"{composed}.mask.png").write_bytes(b"x")
    with pytest.raises(UnusableFileError, match=r"\.mask\.png") as fault:
        SubjectFolders(tmp_path).pictures(0, [0])
    assert fault.value.file.name == f"{composed}.mask.png"
    assert read.masks is not None
    assert read.info["files"] == [f"{composed}.png"]


def test_a_flat_folder_is_one_subject(tmp_path: Path) -> None:
    write_subject(tmp_path / "10_red fox", subject_set(1, 3))
    (tmp_path / "10_red fox" / "set.json").unlink()
    (tmp_path / "10_red fox" / "1.txt").unlink()
    flat, nested = SubjectFolders(tmp_path / "10_red fox"), SubjectFolders(tmp_path)
    assert (flat.flat, nested.flat) == (True, False)
    for found in (flat, nested):
        assert (len(found), found.size(0)) == (1, 3)
        assert found.pictures(0, [0, 1]).captions == ("subject 1, picture 0", "red fox")


def test_set_json_counts_pictures_in_natural_order(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    for number in range(11):
        picture(number).save(tmp_path / "dog" / f"{number}.png")
    captions = [f"picture {number}" for number in range(11)]
    (tmp_path / "dog" / "set.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"captions": captions}).encode())
    found = SubjectFolders(tmp_path).pictures(0, range(11))
    assert list(found.captions) == captions
    assert [file.removesuffix(".png") for file in found.info["files"]] == [str(n) for n in range(11)]


def test_names_that_are_not_utf8_are_no_captions(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.makedirs(folder)
    for name in (b"k\xfch.png", b"0.png"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(encoded(picture(0)))
    with open(folder + b"/k\xfch.txt", "w") as file:
        file.write("a cow")
    found = SubjectFolders(tmp_path)
    (read,) = (found.pictures(0, [1]),)
    assert read.captions == ("a cow",)
    assert read.info == {"folder": r"caf\xe9", "files": [r"k\xfch.png"]}
    with pytest.raises(UnusableFileError, match="is not UTF-8, so it cannot be a caption") as fault:
        found.pictures(0, [0])
    assert os.fsencode(fault.value.file) == folder
