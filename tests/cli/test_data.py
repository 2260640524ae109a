"""`jedi data`: there and back between folders, shards and the paper's format; faults counted and named."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.data.folders import SubjectFolders, write_subject
from jedi_diffusion.data.storage import read_bytes
from jedi_diffusion.data.stored import StoredSets
from jedi_diffusion.pictures import open_picture
from tests.helpers.object_store import object_store
from tests.helpers.small_sets import picture, subject_set


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three subjects with 2, 3, 4 wide pictures, one of them a rotated photo, one a CMYK."""
    folder = tmp_path / "photos"
    for subject, name in enumerate(("dog", "red_fox", "cat2")):
        (folder / name).mkdir(parents=True)
        for number in range(subject + 2):
            picture(10 * subject + number, 40).resize((60, 40)).save(folder / name / f"{number}.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(77, 40).resize((60, 40)).save(folder / "dog" / "0.jpg", quality=95, exif=turned)
    (folder / "dog" / "0.png").unlink()
    (folder / "dog" / "0.txt").write_text("a dog, turned")
    picture(78, 40).convert("CMYK").save(folder / "red_fox" / "0.jpg", quality=95)
    (folder / "red_fox" / "0.png").unlink()
    return folder


def contents(place: Path | str) -> list[tuple[str, tuple[str, ...], int]]:
    sets = StoredSets(str(place))
    stored = [sets.stored(item) for item in range(len(sets))]
    assert all(len(each.decode("x")) == len(each.captions) for each in stored)
    return [(each.subject, each.captions, len(each.captions)) for each in stored]


EXPECTED = [
    ("cat", ("cat",) * 4, 4),
    ("dog", ("a dog, turned", "dog"), 2),
    ("red fox", ("red fox",) * 3, 3),
]


def test_folders_to_shards_and_back(jedi, photos: Path, tmp_path: Path) -> None:
    done = jedi(
        "data", "pack", photos, "--out", tmp_path / "shards", "--size", 32, "--kind", "png", "--name", "mine"
    )
    assert done.status == 0
    assert f"3 sets with 9 pictures are in {tmp_path / 'shards'} in 1 shards" in done.out
    assert done.out.splitlines()[-1] == "Pictures taken: 9; files left out: 0; quarantined: 0"
    assert "jedi:" not in done.err
    assert contents(tmp_path / "shards") == EXPECTED
    stored = StoredSets(str(tmp_path / "shards")).stored(1)
    assert (stored.source, stored.info) == ("mine", {})
    assert jedi("data", "unpack", tmp_path / "shards", "--out", tmp_path / "again").status == 0
    names = sorted(each.name for each in (tmp_path / "again").iterdir())
    assert names == ["000000-cat", "000001-dog", "000002-red-fox"]
    again = SubjectFolders(tmp_path / "again")
    for item, (_, captions, count) in enumerate(EXPECTED):
        read = again.pictures(item, range(count))
        packed = StoredSets(str(tmp_path / "shards")).stored(item).decode("x")
        assert read.captions == captions
        assert [np.asarray(each).tolist() for each in read.pictures] == [
            np.asarray(each).tolist() for each in packed.pictures
        ]


def test_names_of_files_go_into_shards_only_where_that_is_asked_for(
    jedi, photos: Path, tmp_path: Path
) -> None:
    words = ("data", "pack", photos, "--size", 32, "--out")
    for folder, more, found in ((tmp_path / "a", (), False), (tmp_path / "b", ("--record-names",), True)):
        assert jedi(*words, folder, *more).status == 0
        data = next(folder.glob("*.tar")).read_bytes()
        assert (b'"0.jpg"' in data, b"red_fox" in data) == (found, found)
    assert StoredSets(str(tmp_path / "b")).stored(1).info["files"] == ["0.jpg", "1.png"]


def test_shards_to_the_papers_format_and_back_without_loss(jedi, photos: Path, tmp_path: Path) -> None:
    assert jedi("data", "pack", photos, "--out", tmp_path / "a", "--size", 32, "--shard-sets", 2).status == 0
    assert len(list((tmp_path / "a").glob("*.tar"))) == 2
    assert jedi("data", "unpack", tmp_path / "a", "--out", tmp_path / "b", "--to", "stacked").status == 0
    text = (tmp_path / "b" / "000001.txt").read_text()
    assert text == "a dog, turned<|split|>dog"
    assert open_picture(tmp_path / "b" / "000001.jpg").size == (32, 64)
    assert jedi("data", "pack", tmp_path / "b", "--out", tmp_path / "c").status == 0
    assert contents(tmp_path / "c") == EXPECTED
    first, second = (StoredSets(str(tmp_path / name)).stored(2) for name in "ac")
    assert first.stacked == second.stacked
    assert jedi("data", "pack", photos, "--out", tmp_path / "d", "--size", 32, "--to", "stacked").status == 0
    for file in (tmp_path / "b").iterdir():
        assert file.read_bytes() == (tmp_path / "d" / file.name).read_bytes()


def test_large_subjects_become_several_sets(jedi, photos: Path, tmp_path: Path) -> None:
    assert jedi("data", "pack", photos, "--out", tmp_path / "a", "--size", 32, "--largest", 3).status == 0
    assert [count for *_, count in contents(tmp_path / "a")] == [2, 2, 2, 3]


def test_each_bad_file_is_named_and_costs_no_other(jedi, photos: Path, tmp_path: Path) -> None:
    (photos / "dog" / "1.png").write_bytes(b"no picture")
    (photos / "red_fox" / "1.txt").write_bytes("a fox in a café".encode("latin-1"))
    (photos / "red_fox" / "2.txt").write_text("a <|split|> b")
    (photos / "broken").mkdir()
    (photos / "broken" / "0.png").write_bytes(b"")
    done = jedi("data", "pack", photos, "--out", tmp_path / "a", "--size", 32)
    assert done.status == 0
    record = tmp_path / "a" / "quarantine.jsonl"
    assert done.out.splitlines()[-1] == f"Pictures taken: 6; files left out: 0; quarantined: 4 ({record})"
    told = {each["item"]: each["reason"] for each in map(json.loads, record.read_text().splitlines())}
    files = [str(photos / name) for name in ("broken/0.png", "dog/1.png", "red_fox/1.txt", "red_fox/2.txt")]
    assert list(told) == files
    assert all(file in reason for file, reason in told.items())
    assert contents(tmp_path / "a") == [
        EXPECTED[0],
        ("dog", ("a dog, turned",), 1),
        ("red fox", ("red fox",), 1),
    ]
    (photos / "zebra").mkdir()
    done = jedi("data", "pack", photos, "--out", tmp_path / "b", "--size", 32, "--limit", 2)
    assert done.status == 1
    assert "more than the limit of 2" in done.err
    assert "2 sets with 5 pictures" in done.out  # what came before is kept
    assert len(contents(tmp_path / "b")) == 2


def test_more_than_a_hundred_stray_files_stop_nothing(jedi, photos: Path, tmp_path: Path) -> None:
    for number in range(101):
        (photos / "dog" / f"{number + 10}.jpg").write_bytes(b"x")
        (photos / "dog" / f"._{number}.jpg").write_bytes(b"x")
    done = jedi("data", "pack", photos, "--out", tmp_path / "a", "--size", 32)
    assert (done.status, "Pictures taken: 9; files left out: 0; quarantined: 101" in done.out) == (0, True)


def test_what_is_left_out_is_counted_and_named(jedi, photos: Path, tmp_path: Path) -> None:
    (photos / "dog" / "more").mkdir()
    for name in ("top.png", "dog/more/7.png"):
        picture(1).save(photos / name)
    (photos / "dog" / "8.dng").write_bytes(b"x")
    for name, kind in (
        ("dog/3.jfif", "JPEG"),
        ("dog/4.JPE", "JPEG"),
        ("dog/5.avif", "AVIF"),
        ("dog/6.mpo", "MPO"),
    ):
        picture(2).save(photos / name, kind)
    done = jedi("data", "pack", photos, "--out", tmp_path / "a", "--size", 32)
    assert done.status == 0
    record = tmp_path / "a" / "left_out.jsonl"
    assert done.out.splitlines()[-1] == f"Pictures taken: 13; files left out: 3 ({record}); quarantined: 0"
    assert f"warning: 3 files are left out: {record}" in done.err
    names = [json.loads(line)["file"] for line in record.read_text().splitlines()]
    assert names == [str(photos / name) for name in ("top.png", "dog/8.dng", "dog/more/7.png")]
    assert all(f"left out: {name}" in done.err for name in names)
    checked = jedi("data", "check", photos)
    assert checked.status == 0
    assert all(name in checked.err for name in names)


def test_sets_that_no_file_can_hold_are_split(jedi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jedi_diffusion.data.record.MAX_PIXELS", 32 * 32 * 3)
    write_subject(tmp_path / "photos" / "dog", subject_set(1, 7))
    done = jedi("data", "pack", tmp_path / "photos", "--out", tmp_path / "a", "--size", 32)
    assert done.status == 0
    assert "at most 3 pictures" in done.err
    assert [count for *_, count in contents(tmp_path / "a")] == [3, 2, 2]


def test_a_flat_folder_of_photos_is_one_subject_and_that_is_said(jedi, tmp_path: Path) -> None:
    write_subject(tmp_path / "10_red fox", subject_set(1, 3))
    for file in ("set.json", "1.txt"):
        (tmp_path / "10_red fox" / file).unlink()
    for command in (("pack", "--out", tmp_path / "a", "--size", 32), ("check",)):
        done = jedi("data", command[0], tmp_path / "10_red fox", *command[1:])
        assert done.status == 0
        assert 'its 3 pictures are taken as one subject, "red fox"' in done.err
        assert "before the name of 10_red fox is taken for repeats" in done.err
    captions = ("subject 1, picture 0", "red fox", "subject 1, picture 2")
    assert contents(tmp_path / "a") == [("red fox", captions, 3)]


def test_names_that_are_not_utf8_go_in_and_out(jedi, tmp_path: Path) -> None:
    folder, out = (Path(os.fsdecode(os.fsencode(tmp_path) + name)) for name in (b"/k\xfch", b"/o\xe9"))
    write_subject(folder / os.fsdecode(b"caf\xe9"), subject_set(1, 2))
    done = jedi("data", "pack", folder, "--out", out, "--size", 32, "--name", "mine", "--record-names")
    assert (done.status, r"are in" in done.out, r"o\udce9 in 1 shards" in done.out) == (0, True, True)
    stored = StoredSets(str(out)).stored(0)
    assert (stored.captions, stored.info["folder"]) == (subject_set(1, 2).captions, r"caf\xe9")
    assert jedi("data", "check", out).status == 0


def test_an_interrupted_pack_keeps_the_sets_before(
    jedi, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = tarfile.TarFile.addfile

    def interrupted(archive: tarfile.TarFile, entry: tarfile.TarInfo, *rest: object) -> None:
        add(archive, entry, *rest)
        if entry.name == "000002.txt":
            raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, "addfile", interrupted)
    done = jedi("data", "pack", photos, "--out", tmp_path / "a", "--size", 32)
    assert done.status == 130
    assert "2 sets with 6 pictures" in done.out
    assert contents(tmp_path / "a") == EXPECTED[:2]


def test_pack_to_a_bucket(jedi, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "dog" / "1.png").write_bytes(b"no picture")
    with object_store(monkeypatch) as bucket:
        for to in ("shards", "stacked"):
            done = jedi("data", "pack", photos, "--out", f"{bucket}/{to}", "--size", 32, "--to", to)
            assert done.status == 0, done.err
            assert f"3 sets with 8 pictures are in {bucket}/{to}" in done.out
            assert f"quarantined: 1 ({bucket}/{to}/quarantine.jsonl)" in done.out
            (line,) = read_bytes(f"{bucket}/{to}/quarantine.jsonl").splitlines()
            assert json.loads(line)["item"].endswith("dog/1.png")
            assert [count for *_, count in contents(f"{bucket}/{to}")] == [4, 1, 3]
            assert jedi("data", "pack", photos, "--out", f"{bucket}/{to}").status == 2
        done = jedi("data", "pack", photos, "--out", "s3://none/x", "--size", 32)
        assert done.status == 1
        assert "s3://none/x" in done.err


def test_views_and_their_backgrounds_are_packed_for_good(jedi, tmp_path: Path) -> None:
    for asset in ("chair", "lamp"):
        (tmp_path / "renders" / asset).mkdir(parents=True)
        (tmp_path / "renders" / asset / "caption.txt").write_text(f"a {asset}")
        for number in range(5):
            view = picture(number, 40).convert("RGBA")
            view.putalpha(picture(90 + number, 40, "L"))
            view.save(tmp_path / "renders" / asset / f"{number}.png")
    (tmp_path / "renders" / "lamp" / "extra.txt").write_text("two captions")
    words = (
        "data",
        "pack",
        tmp_path / "renders",
        "--source-kind",
        "multiview",
        "--size",
        32,
        "--kind",
        "png",
    )
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        done = jedi(*words, "--largest", 4, "--out", tmp_path / out, "--seed", seed)
        assert done.status == 0
        assert "1 sets with 4 pictures" in done.out
        assert "quarantined: 1 (" in done.out
    assert contents(tmp_path / "a") == [("", ("a chair",) * 4, 4)]
    first, same, other = (StoredSets(str(tmp_path / name)).stored(0) for name in "abc")
    assert first.masks is not None
    assert first == same
    assert first.stacked != other.stacked


def test_check_finds_what_is_broken(jedi, photos: Path, tmp_path: Path) -> None:
    assert jedi("data", "pack", photos, "--out", tmp_path / "a", "--size", 32, "--shard-sets", 1).status == 0
    for place in (photos, tmp_path / "a"):
        done = jedi("data", "check", place)
        assert done.status == 0
        assert "3 good sets with 9 pictures: 1 of 2, 1 of 3, 1 of 4" in done.out
    (tmp_path / "a" / "00000.tar.index.jsonl").unlink()
    data = bytearray((tmp_path / "a" / "00001.tar").read_bytes())
    data[700] ^= 255
    (tmp_path / "a" / "00001.tar").write_bytes(data)
    done = jedi("data", "check", tmp_path / "a")
    assert done.status == 1
    assert "1 good sets" in done.out
    assert "00000.tar has no index" in done.err
    assert "checksum of its jpg" in done.err
    assert "2 faults in" in done.err
    done = jedi("data", "index", tmp_path / "a")
    assert (done.status, done.out) == (0, "3 samples in 3 tars; 1 indexes written\n")
    assert jedi("data", "index", tmp_path / "a", "--again").out == "3 samples in 3 tars; 3 indexes written\n"


def test_index_names_broken_tars_and_does_the_others(jedi, photos: Path, tmp_path: Path) -> None:
    assert jedi("data", "pack", photos, "--out", tmp_path / "a", "--size", 32, "--shard-sets", 1).status == 0
    tar = tmp_path / "a" / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:900])
    (tmp_path / "a" / "00002.tar.index.jsonl").write_bytes(b"")
    done = jedi("data", "index", tmp_path / "a")
    assert done.status == 1
    assert done.out == "2 samples in 2 tars; 1 indexes written\n"
    assert f"1 of 3 tars cannot be indexed: {tar}" in done.err


def test_show_draws_sets(jedi, photos: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert jedi("data", "show", photos, "--out", sheet, "--sets", 2, "--cell", 64).status == 0
    small = open_picture(sheet)
    assert jedi("data", "show", photos, "--out", sheet, "--cell", 64).status == 0
    assert open_picture(sheet).height > small.height


def test_wrong_requests_are_refused(jedi, photos: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    for words, said in {
        ("pack", photos, *out, "--size", 8): "--size is 8",
        ("pack", photos, *out, "--size", 60): "take 56 or 64 pixels, or png",
        ("pack", photos, "--out", photos): "is not empty",
        ("unpack", photos, "--out", photos): "is not empty",
        ("unpack", photos, *out, "--first", -1): "--first",
        ("show", photos, "--sets", 0): "--sets is 0",
        ("index", "s3://bucket/x.tar"): "is not local",
    }.items():
        done = jedi("data", *words)
        assert done.status == 2, words
        assert said in done.err
    for words in (("pack", tmp_path / "none", *out), ("check", tmp_path / "none"), ("index", tmp_path)):
        assert jedi("data", *words).status == 1


def test_real_photos(jedi, dreambench: Path, tmp_path: Path) -> None:
    """Two subjects of the DreamBooth photos, through links so that the rest is not read."""
    (tmp_path / "two").mkdir()
    for name in ("dog", "bear_plushie"):
        (tmp_path / "two" / name).symlink_to(dreambench / name)
    assert jedi("data", "pack", tmp_path / "two", "--out", tmp_path / "sets", "--size", 64).status == 0
    assert [(subject, count) for subject, _, count in contents(tmp_path / "sets")] == [
        ("bear plushie", 5),
        ("dog", 5),
    ]
    assert jedi("data", "check", tmp_path / "sets").status == 0
