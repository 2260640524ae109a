"""A library of photos: what `add` keeps however it ends, and what prompts and photos find."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.errors import DataError, UsageError
from jedi_diffusion.files import file_lock
from jedi_diffusion.library import (
    BATCH,
    VECTORS,
    Library,
    encoder_of,
    open_library,
    similarities,
    subject_of,
    words_of,
)


class Colours:
    """A picture is its mean colour."""

    fingerprint = "colours"

    def identities(self, pictures):
        rows = np.array([np.asarray(each, np.float32).mean((0, 1)) + 1e-3 for each in pictures])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def save(path: Path, *colour: int, caption: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    if caption:
        path.with_suffix(".txt").write_text(caption)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    save(folder / "rex" / "1.png", 200, 10, 10, caption="rex asleep")
    save(folder / "rex" / "2.png", 200, 20, 10)
    save(folder / "rex" / "3.png", 180, 10, 60, caption="rex at the lake")
    save(folder / "my_red_car" / "1.png", 90, 90, 200)
    save(folder / "car" / "1.png", 10, 200, 10)
    save(folder / "loose.png", 100, 100, 100)
    return folder


def made(folder: Path, photos: Path | None = None) -> Library:
    library = Library.create(folder, "toybox", "colours", 3)
    if photos is not None:
        assert list(library.add(photos, Colours()))
    return library


def names(entries) -> list[str]:
    return ["/".join(Path(each.path).parts[-2:]) for each in entries]


def test_subjects_are_folders_and_words_find_them(tmp_path, photos) -> None:
    library = made(tmp_path / "library", photos)
    assert library.subjects() == {"car": 1, "my red car": 1, "photos": 1, "rex": 3}
    assert library.subject_in("Rex, at the lake!") == "rex"
    assert library.subject_in("my red car in the snow") == "my red car"  # the longest
    assert library.subject_in("a blue car") == "car"
    with pytest.raises(UsageError, match=r"names no subject of the library \(car, my red car, photos, rex\)"):
        library.subject_in("a cat")
    with pytest.raises(UsageError, match=r"names several subjects of the library \(car, rex\)"):
        library.subject_in("rex in a car")
    with pytest.raises(UsageError, match="has no photo of 'cat'"):
        library.choose("rex", "cat")
    assert words_of("My dog's ball, at THE lake") == ["dog", "s", "ball", "lake"]
    assert subject_of(Path("/a/b/IMG_1.png")) == "b"


def test_photos_are_chosen_alike_their_subject_and_unlike_each_other(tmp_path, photos) -> None:
    library = made(tmp_path / "library", photos)
    vectors = Colours().identities([Image.open(photos / "rex" / f"{n}.png") for n in (1, 2, 3)])
    middle = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
    first = int(np.argmax(vectors @ middle))
    (only,) = library.choose("rex", count=1)
    assert names([only]) == [f"rex/{first + 1}.png"]
    assert only.likeness == pytest.approx(float(vectors[first] @ middle))
    assert names(library.choose("rex", count=2))[1] == "rex/3.png"  # the one that is unlike the others
    assert names(library.choose("rex at the lake", count=1)) == ["rex/3.png"]  # its caption says so
    assert sorted(names(library.choose("rex", count=9))) == ["rex/1.png", "rex/2.png", "rex/3.png"]
    (photos / "rex" / "3.png").unlink()
    assert len(library.choose("rex at the lake", count=9)) == 2


def test_the_nearest_are_those_of_a_plain_sort(tmp_path, photos) -> None:
    library = made(tmp_path / "library", photos)
    (vector,) = Colours().identities([Image.new("RGB", (4, 4), (20, 190, 30))])
    found = library.nearest(vector, 3)
    every = np.asarray(library.vectors()) @ vector
    assert [each.place for each in found] == np.argsort(-every)[:3].tolist()
    assert names(found)[0] == "car/1.png"
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20_000, 8)).astype(np.float32)
    assert np.allclose(similarities(rows, rows[3]), rows @ rows[3], atol=1e-5)


def test_adding_again_changes_nothing_and_takes_what_has_changed(tmp_path, photos) -> None:
    library = made(tmp_path / "library", photos)
    before = np.array(library.vectors())
    (done,) = library.add(photos, Colours())
    assert (done.new, done.kept, done.refused) == (0, 6, 0)
    assert np.array_equal(library.vectors(), before)
    save(photos / "car" / "1.png", 1, 2, 250)
    (done,) = library.add(photos, Colours())
    assert (done.new, done.kept) == (1, 5)
    assert len(library) == 6
    (vector,) = Colours().identities([Image.new("RGB", (4, 4), (1, 2, 250))])
    assert names(library.nearest(vector, 1)) == ["car/1.png"]


def test_bad_files_are_refused_with_reasons_until_they_are_mended(tmp_path, photos) -> None:
    (photos / "rex" / "4.png").write_bytes(b"nothing")
    (photos / "rex" / "5.jpg").write_bytes(b"")
    library = made(tmp_path / "library", photos)
    reasons = library.refused()
    assert [Path(path).name for path in reasons] == ["4.png", "5.jpg"]
    assert all(Path(path).name in reason for path, reason in reasons.items())
    (done,) = library.add(photos, Colours())
    assert (done.new, done.kept, done.refused) == (0, 8, 0)
    save(photos / "rex" / "4.png", 200, 10, 10)
    (done,) = library.add(photos, Colours())
    assert done.new == 1
    assert [Path(path).name for path in library.refused()] == ["5.jpg"]


@pytest.mark.parametrize("when", ["before the vectors", "after the vectors"])
def test_a_killed_add_loses_nothing_and_goes_on(tmp_path, photos, monkeypatch, when) -> None:
    for number in range(2 * BATCH):
        save(photos / "many" / f"{number}.png", number, 2 * number, 40)
    library = made(tmp_path / "library")
    write, calls = Library._write, []

    def killed(self, vectors, first):
        calls.append(first)
        if len(calls) == 2:
            if when == "after the vectors":
                write(self, vectors[:5], first)
            raise KeyboardInterrupt
        write(self, vectors, first)

    monkeypatch.setattr(Library, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        list(library.add(photos, Colours()))
    monkeypatch.undo()
    assert len(library) == BATCH
    assert len(Library(library.folder).vectors()) == BATCH
    *_, done = Library(library.folder).add(photos, Colours())
    assert (done.new, done.kept) == (6 + BATCH, BATCH)
    whole = made(tmp_path / "at once", photos)
    assert np.array_equal(library.vectors(), whole.vectors())


def test_another_encoder_and_what_is_no_library_are_one_sentence(tmp_path, photos) -> None:
    library = made(tmp_path / "library", photos)
    with pytest.raises(UsageError, match="made with the encoder toybox, whose vectors cannot be compared"):
        open_library(library.folder, "lite2")
    with pytest.raises(UsageError, match="made with other weights of toybox"):
        open_library(library.folder, None)
    with pytest.raises(DataError, match="is no library"):
        Library(photos)
    with file_lock(library.folder / "lock", wait=True), pytest.raises(UsageError, match="Another process"):
        list(library.add(photos, Colours()))
    (library.folder / VECTORS).write_bytes(b"short")
    with pytest.raises(DataError, match="does not hold the 6 vectors"):
        library.nearest(np.ones(3, np.float32), 1)
    (library.folder / "photos.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="damaged"):
        Library(library.folder)


def test_a_new_library_is_made_with_an_encoder_that_is_there(tmp_path, monkeypatch) -> None:
    def missing(name):
        if name != "toybox":
            raise UsageError("not installed")
        return encoder_of(name)

    monkeypatch.setattr("jedi_diffusion.library.encoder_of", missing)
    library, _ = open_library(tmp_path / "one", None)
    assert (library.encoder, library.width, len(library)) == ("toybox", 64, 0)
    assert library.nearest(np.ones(64, np.float32), 3) == []
    with pytest.raises(UsageError, match="not installed"):
        open_library(tmp_path / "two", "lite0")
    with sqlite3.connect(library.folder / "photos.sqlite") as rows:
        rows.execute("UPDATE about SET value = '0' WHERE name = 'format'")
    with pytest.raises(DataError, match="another version"):
        Library(library.folder)
