"""What a training began on: any file or shard that differs is named, and time stamps alone do not count."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jedi_diffusion.data.digests import check_unchanged
from jedi_diffusion.data.folders import SubjectFolders, write_subject
from jedi_diffusion.data.multiview import MultiviewAssets
from jedi_diffusion.data.storage import write_bytes
from jedi_diffusion.data.stored import StoredSets
from jedi_diffusion.errors import RecipeError
from tests.helpers.object_store import object_store
from tests.helpers.small_sets import picture, subject_set, write_shards


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, name in enumerate(("cow", "dog")):
        write_subject(tmp_path / "photos" / name, subject_set(seed, 2, masks=True))
    return tmp_path / "photos"


def add_picture(cow: Path) -> None:
    picture(7).save(cow / "2.png")


def save_another(cow: Path) -> None:
    picture(8).save(cow / "1.png")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "replaced": (save_another, "cow/1.png has changed"),
    "caption": (lambda cow: (cow / "0.txt").write_text("a teapot"), "cow/0.txt has changed"),
    "mask": (lambda cow: picture(9, mode="L").save(cow / "0.mask.png"), "cow/0.mask.png has changed"),
    "added": (add_picture, r"cow/0\.mask\.png is gone"),
    "removed": (lambda cow: (cow / "1.txt").unlink(), r"cow/1\.txt is gone \(and 1 more\)"),
    "renamed": (lambda cow: cow.rename(cow.with_name("ox")), r"cow/0\.png is gone \(and 11 more\)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_folders_are_refused(photos: Path, tmp_path: Path, change: str) -> None:
    record = tmp_path / "data.jsonl"
    check_unchanged(record, [SubjectFolders(photos)], begun=False)
    written = record.read_bytes()
    made, message = CHANGES[change]
    made(photos / "cow")
    with pytest.raises(RecipeError, match=rf"other data than there is now: .*{message}"):
        check_unchanged(record, [SubjectFolders(photos)], begun=True)
    assert record.read_bytes() == written
    check_unchanged(record, [SubjectFolders(photos)], begun=False)  # nothing was trained on the first yet
    check_unchanged(record, [SubjectFolders(photos)], begun=True)


def test_untouched_files_are_not_read_and_copies_pass(photos: Path, tmp_path: Path) -> None:
    record = tmp_path / "data.jsonl"
    check_unchanged(record, [SubjectFolders(photos)], begun=True)  # of an older version: no record yet
    file = photos / "cow" / "0.png"
    os.utime(file, ns=(1, 1))
    check_unchanged(record, [SubjectFolders(photos)], begun=True)
    stamp, data = os.stat(file), bytearray(file.read_bytes())
    data[-1] ^= 1
    check_unchanged(record, [SubjectFolders(photos)], begun=False)
    file.write_bytes(data)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    check_unchanged(record, [SubjectFolders(photos)], begun=True)


def test_shards_count_by_their_index(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", (2, 3, 1), per_shard=2)
    record = tmp_path / "data.jsonl"
    check_unchanged(record, [StoredSets(str(tmp_path / "shards"))], begun=False)
    assert len(record.read_text().splitlines()) == 2
    first = tmp_path / "shards" / "00000.tar"
    length = first.stat().st_size
    write_shards(tmp_path / "others", (3, 2, 1), per_shard=2)
    for ending in ("", ".index.jsonl"):
        (tmp_path / "others" / f"00000.tar{ending}").replace(f"{first}{ending}")
    assert first.stat().st_size == length
    with pytest.raises(RecipeError, match=r"00000\.tar has changed\. Put the data back"):
        check_unchanged(record, [StoredSets(str(tmp_path / "shards"))], begun=True)


def test_views_and_their_backgrounds_count(tmp_path: Path) -> None:
    for file in ("renders/chair/0.png", "photos/0.png"):
        (tmp_path / file).parent.mkdir(parents=True)
        picture(0).save(tmp_path / file)
    (tmp_path / "renders" / "chair.txt").write_text("a chair")
    record = tmp_path / "data.jsonl"
    sources = [MultiviewAssets(str(tmp_path / "renders"), str(tmp_path / "photos"))]
    check_unchanged(record, sources, begun=False)
    names = [
        json.loads(line)["file"].removeprefix(f"{tmp_path}/") for line in record.read_text().splitlines()
    ]
    assert names == ["renders/chair/0.png", "renders/chair.txt", "photos/0.png"]
    picture(1).save(tmp_path / "photos" / "0.png")
    with pytest.raises(RecipeError, match=r"photos/0\.png has changed"):
        check_unchanged(record, sources, begun=True)


def test_a_bucket_says_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store(monkeypatch) as bucket:
        for name in ("chair/0.png", "chair.txt"):
            write_bytes(f"{bucket}/renders/{name}", b"one")
        sources = [MultiviewAssets(f"{bucket}/renders")]
        check_unchanged(tmp_path / "data.jsonl", sources, begun=False)
        check_unchanged(tmp_path / "data.jsonl", sources, begun=True)
        write_bytes(f"{bucket}/renders/chair.txt", b"two")
        with pytest.raises(RecipeError, match=r"chair\.txt has changed"):
            check_unchanged(tmp_path / "data.jsonl", [MultiviewAssets(f"{bucket}/renders")], begun=True)


@pytest.mark.parametrize("text", ["{}\n", "notes\n"])
def test_a_damaged_record_is_named(photos: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "data.jsonl").write_text(text)
    with pytest.raises(RecipeError, match=r"data\.jsonl.* cannot be read"):
        check_unchanged(tmp_path / "data.jsonl", [SubjectFolders(photos)], begun=True)
