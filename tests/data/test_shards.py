"""Shards: written whole or not at all, indexed, read at random; every kind of damage by name."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.record import StoredSet
from jedi_diffusion.data.shards import (
    ShardIndex,
    Shards,
    ShardWriter,
    build_index,
    index_name,
    load_index,
    save_index,
)
from jedi_diffusion.errors import DataError, OutputError, UsageError
from tests.helpers.small_sets import SIZES, same, stored_set, subject_set, write_shards


def read(shards: Shards, item: int):
    sample = shards.read(item)
    return StoredSet.from_members(sample.key, sample.files, sample.name).decode(sample.name)


def test_sets_of_different_sizes_come_back_in_any_order(tmp_path: Path) -> None:
    tars = write_shards(tmp_path)
    assert [tar.name for tar in tars] == ["00000.tar", "00001.tar", "00002.tar"]
    shards = Shards(str(tmp_path))
    assert len(shards) == len(SIZES)
    for item in (4, 0, 6, 2, 5, 1, 3):
        assert same(read(shards, item), subject_set(item, SIZES[item], masks=item % 2 == 0))
        sample = shards.sample(item)
        assert (sample.width, sample.height, sample.captions) == (8, 8 * SIZES[item], SIZES[item])
    for outside in (-1, len(SIZES)):
        with pytest.raises(IndexError):
            shards.read(outside)


def test_tars_are_what_others_read(tmp_path: Path) -> None:
    """WebDataset's layout by the standard library alone; the index gives the very bytes."""
    tar, *_ = write_shards(tmp_path)
    data = tar.read_bytes()
    index = load_index(str(tar))
    with tarfile.open(tar) as archive:
        names = archive.getnames()
        assert names[:4] == ["00000.png", "00000.txt", "00000.json", "00000.mask.png"]
        for row in range(len(index)):
            for ending, file in index[row].files.items():
                there = archive.extractfile(f"{index[row].key}.{ending}").read()
                assert data[file.offset : file.offset + file.size] == there


def test_index_survives_its_encoding_and_is_what_a_fresh_look_finds(tmp_path: Path) -> None:
    tar, *_ = write_shards(tmp_path)
    index = load_index(str(tar))
    assert build_index(tar).encode() == index.encode() == Path(index_name(str(tar))).read_bytes()
    assert len(ShardIndex.parse(index.encode())) == 3
    for line in index.encode().splitlines():
        assert isinstance(json.loads(line), dict)


def test_shards_roll_by_bytes(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, size=6000) as writer:
        for seed in range(9):
            writer.write(stored_set(seed, 2))
    assert len(writer.finished) > 2
    assert all(Path(tar).stat().st_size <= 10240 for tar in writer.finished)  # tar's own padding
    assert len(Shards(str(tmp_path))) == 9


def test_a_set_larger_than_a_shard_is_a_shard(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, size=1) as writer:
        for seed in range(3):
            writer.write(stored_set(seed, 2))
    assert len(writer.finished) == 3


def test_writing_goes_on_after_what_is_there(tmp_path: Path) -> None:
    first = write_shards(tmp_path)
    before = [tar.read_bytes() for tar in first]
    second = write_shards(tmp_path)
    assert [tar.name for tar in second] == ["00003.tar", "00004.tar", "00005.tar"]
    assert [tar.read_bytes() for tar in first] == before
    assert len(Shards(str(tmp_path))) == 2 * len(SIZES)


def test_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first, second = ShardWriter(tmp_path), ShardWriter(tmp_path)
    for writer in (first, second):
        writer.write(stored_set(1, 1))
    first.finish()
    before = {Path(each): Path(each).read_bytes() for each in first.finished}
    with pytest.raises(OutputError, match=r"00000\.tar was written by another program"):
        second.finish()
    assert {each: each.read_bytes() for each in tmp_path.glob("*.tar")} == before
    assert len(Shards(str(tmp_path))) == 1
    assert not list(tmp_path.glob(".*"))


def test_keys_are_checked(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write(stored_set(1, 1))
        for key in ("00001", "a.b", "../x", ""):
            with pytest.raises(UsageError, match="cannot name a set"):
                writer.write(StoredSet.encode(key, subject_set(1, 1), "png"))
    with pytest.raises(UsageError, match="at least one set"):
        ShardWriter(tmp_path, sets=0)


def test_an_error_leaves_finished_shards_only(tmp_path: Path) -> None:
    def interrupted() -> None:
        with ShardWriter(tmp_path, sets=2) as writer:
            for seed in range(5):
                writer.write(stored_set(seed, 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        f"0000{number}.tar{ending}" for number in (0, 1) for ending in ("", ".index.jsonl")
    ]
    assert len(Shards(str(tmp_path))) == 4


def test_a_set_that_is_stopped_half_way_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ShardWriter(tmp_path)
    writer.write(stored_set(0, 2))
    added: list[str] = []
    add = tarfile.TarFile.addfile

    def stopped(self: tarfile.TarFile, info: tarfile.TarInfo, data: object = None) -> None:
        if len(added) == 2:
            raise KeyboardInterrupt
        added.append(info.name)
        add(self, info, data)

    monkeypatch.setattr(tarfile.TarFile, "addfile", stopped)
    with pytest.raises(KeyboardInterrupt):
        writer.write(stored_set(1, 3))
    monkeypatch.undo()
    assert added == ["00001.png", "00001.txt"]
    writer.write(stored_set(2, 1))
    writer.finish()
    shards = Shards(str(tmp_path))
    assert len(shards) == 2
    assert same(read(shards, 0), subject_set(0, 2))
    assert same(read(shards, 1), subject_set(2, 1))


def test_a_full_disk_costs_no_finished_shard(tmp_path: Path) -> None:
    """The limit on the size of a file stands in for the disk: writing beyond it fails in the kernel."""
    write_shards(tmp_path, (1, 2))
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        with ShardWriter(tmp_path) as writer:
            for seed in range(200):
                writer.write(stored_set(seed, 4))

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(OutputError, match=f"shard in {tmp_path} cannot be written: File too large"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before


ENDLESS = """
import sys
from tests.helpers.small_sets import stored_set
from jedi_diffusion.data.shards import ShardWriter
with ShardWriter(sys.argv[1], sets=3) as writer:
    for seed in range(10**6):
        writer.write(stored_set(seed, 2))
"""


def test_a_killed_writer_leaves_whole_shards(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1]
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    writer = subprocess.Popen([sys.executable, "-c", ENDLESS, tmp_path], env=settings)
    deadline = time.monotonic() + 60
    while not (tmp_path / "00001.tar").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.kill()
    writer.wait()
    shards = Shards(str(tmp_path))
    assert len(shards) >= 6
    assert len(shards) % 3 == 0
    for item in range(len(shards)):
        assert same(read(shards, item), subject_set(item, 2))


def test_a_stale_index_is_refused_by_name(tmp_path: Path) -> None:
    tar, *_ = write_shards(tmp_path)
    with open(tar, "ab") as file:
        file.write(bytes(512))
    with pytest.raises(DataError, match=rf"index {tar}\.index\.jsonl is stale: .* data index"):
        Shards(str(tmp_path))
    save_index(tar, build_index(tar))
    assert len(Shards(str(tar))) == 3


def test_a_missing_or_damaged_index_is_refused_by_name(tmp_path: Path) -> None:
    tar, *_ = write_shards(tmp_path)
    index = Path(index_name(str(tar)))
    good = index.read_bytes()
    for bad in (
        b"",
        b"{}",
        good[:-40],
        good.replace(b'"00001"', b'"00007"'),
        good.replace(b"index 1", b"index 2"),
    ):
        index.write_bytes(bad)
        with pytest.raises(DataError, match=rf"index {index} is damaged"):
            load_index(str(tar))
    index.unlink()
    with pytest.raises(DataError, match=r"00000\.tar has no index .*does not exist"):
        load_index(str(tar))


def test_changed_bytes_are_found_when_read(tmp_path: Path) -> None:
    tar, *_ = write_shards(tmp_path)
    place = load_index(str(tar))[1].files["png"].offset + 30
    data = bytearray(tar.read_bytes())
    data[place] ^= 1
    tar.write_bytes(data)
    shards = Shards(str(tmp_path))
    with pytest.raises(DataError, match=r"00001 of .*00000\.tar is damaged: the checksum of its png"):
        shards.read(1)
    assert set(shards.read(1, ["txt"]).files) == {"txt"}
    assert same(read(shards, 0), subject_set(0, SIZES[0], masks=True))


def tar_of(path: Path, *files: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def test_foreign_tars_are_indexed_as_they_come(tmp_path: Path) -> None:
    tar = tar_of(
        tmp_path / "x.tar",
        ("deep/a.jpg", b"broken"),
        ("deep/a.txt", b"one<|split|>two"),
        ("readme", b"no sample"),
        ("b.PNG", stored_set(1, 2).stacked),
        ("b.seg.json", b"{}"),
    )
    index = build_index(tar)
    assert [index[row].key for row in range(len(index))] == ["deep/a", "b"]
    assert (index[0].width, index[0].captions) == (0, 2)
    assert (index[1].width, index[1].height, set(index[1].files)) == (8, 16, {"png", "seg.json"})


def test_broken_tars_are_not_indexed(tmp_path: Path) -> None:
    good, *_ = write_shards(tmp_path / "good")
    data = good.read_bytes()
    end = max(file.offset + file.size for file in load_index(str(good))[2].files.values())
    for length in (0, 100, 700, end - 1, -(-end // 512) * 512):
        bad = tmp_path / "bad.tar"
        bad.write_bytes(data[:length])
        with pytest.raises(DataError, match=rf"{bad} is not a whole tar"):
            build_index(bad)
    apart = tar_of(tmp_path / "apart.tar", ("a.txt", b""), ("b.txt", b""), ("a.json", b"{}"))
    with pytest.raises(DataError, match=r"apart\.tar scatters the files of a"):
        build_index(apart)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        build_index(tmp_path / "none.tar")


def test_a_broken_shard_is_quarantined_and_left_out(tmp_path: Path) -> None:
    tars = write_shards(tmp_path / "sets")
    with open(tars[1], "ab") as file:
        file.write(b"x")
    quarantine = Quarantine(tmp_path / "bad.jsonl", limit=1)
    shards = Shards(str(tmp_path / "sets"), quarantine)
    assert len(shards) == len(SIZES) - 3
    assert same(read(shards, 3), subject_set(6, SIZES[6], masks=True))
    ((source, item), reason) = next(iter(quarantine.reasons().items()))
    assert (source, item) == (str(tmp_path / "sets"), str(tars[1]))
    assert "stale" in reason
    Path(index_name(str(tars[0]))).unlink()
    with pytest.raises(DataError, match=r"more than the limit of 1; .*bad\.jsonl"):
        Shards(str(tmp_path / "sets"), quarantine)
    for tar in tars:
        Path(index_name(str(tar))).unlink(missing_ok=True)
    why = rf"sets holds no samples: {len(tars)} of its shards cannot be used; the first: .*{tars[0].name}"
    with pytest.raises(DataError, match=why):
        Shards(str(tmp_path / "sets"), Quarantine())


def test_members_whose_names_are_not_utf8_are_indexed(tmp_path: Path) -> None:
    members = stored_set(1, 2).members()
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for ending, data in members.items():
            entry = tarfile.TarInfo(os.fsdecode(b"caf\xe9." + ending.encode()))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    save_index(tmp_path / "x.tar", build_index(tmp_path / "x.tar"))
    shards = Shards(str(tmp_path / "x.tar"))
    assert shards.sample(0).key == r"caf\xe9"
    assert same(read(shards, 0), subject_set(1, 2))
