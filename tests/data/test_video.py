"""Frames of videos: the right ones, far enough apart, from folders and from shards."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from jedi_diffusion.data.mixture import Mixture, MixtureSource
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.shards import build_index, load_index, save_index
from jedi_diffusion.data.video import END, VideoFrames, frames_at, seconds_of, spread
from jedi_diffusion.errors import DataError, UsageError
from tests.helpers.small_films import RATE, write_film

pytest.importorskip("av")


def number_of(picture: object) -> float:
    """Which frame a picture is, by its brightness."""
    return (float(np.asarray(picture).mean()) - 20) / 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_film(tmp_path_factory.mktemp("clip") / "x.mp4", 4)


def test_lengths_are_read(clip: bytes, tmp_path: Path) -> None:
    assert seconds_of(clip, "x") == pytest.approx(4.0, abs=0.01)
    assert seconds_of(write_film(tmp_path / "y.mp4", 1.5, rate=30), "y") == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize("times", [[0.0], [1.23], [0.0, 0.1, 2.05], [0.71, 1.5, 3.9]])
def test_frames_are_the_first_at_or_after_their_time(clip: bytes, times: list[float]) -> None:
    for frame, time in zip(frames_at(clip, times, 0.0, "x"), times, strict=True):
        expected = -(-round(time * 1000) // round(1000 / RATE))
        assert abs(number_of(frame.picture) - expected) < 0.4
        assert frame.seconds == pytest.approx(expected / RATE, abs=0.002)
        assert frame.picture.mode == "RGB"


def test_frames_keep_their_distance(clip: bytes) -> None:
    """Times that are 0.55 s apart fall on frames 0.5 s apart, unless the gap is held."""
    times = [0.0, 0.15, 0.3]
    shown = [frame.seconds for frame in frames_at(clip, times, 0.55, "x")]
    assert shown == pytest.approx([0.0, 0.6, 1.2], abs=0.002)


def test_times_are_spread_within_the_length() -> None:
    for seed in range(50):
        times = spread(3.0, 3, 1.0, np.random.default_rng(seed))
        assert times[0] >= 0
        assert times[-1] <= 3.0
        assert min(np.diff(times)) >= 1.0
    assert spread(1.0, 2, 1.0, np.random.default_rng(0)) == [0.0, 1.0]


def folder_of(path: Path) -> Path:
    (path / "00000").mkdir(parents=True)
    for number, seconds in enumerate((4, 1, 2.5)):
        name = path / "00000" / f"{number:05d}"
        write_film(name.with_suffix(".mp4"), seconds)
        name.with_suffix(".txt").write_text(f"brighter and brighter {number}\n")
    return path


def shards_of(path: Path) -> Path:
    with tarfile.open(path / "00000.tar", "w") as archive:
        for file in sorted((path / "00000").iterdir()):
            archive.add(file, file.name)
    save_index(path / "00000.tar", build_index(path / "00000.tar"))
    return path / "00000.tar"


def test_folders_and_shards_give_the_same_sets(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    tar = shards_of(folder)
    assert load_index(str(tar))[0].seconds == pytest.approx(4.0, abs=0.01)
    folder = folder / "00000"  # beside the tar, which would be read in the place of loose files
    loose, packed = VideoFrames(str(folder), gap=0.9), VideoFrames(str(tar), gap=0.9)
    assert packed.name(1) == f"00001 of {tar}"
    assert list(packed.parts()) == [(str(tar), load_index(str(tar)).header.checksum)]
    (folder / "lost.txt").touch()  # of no video
    names = [f"{number:05d}.{ending}" for ending in ("mp4", "txt") for number in range(3)]
    assert list(loose.parts()) == [(f"{folder}/{name}", None) for name in names]
    assert [loose.size(item) for item in range(3)] == [packed.size(item) for item in range(3)] == [5, 1, 3]
    for seed in range(5):
        one, other = (each.read(0, 4, np.random.default_rng(seed)) for each in (loose, packed))
        assert one.captions == other.captions == ("brighter and brighter 0",) * 4
        assert one.info == other.info
        assert (one.source, other.source) == (str(folder), str(tar))
        assert min(np.diff(one.info["seconds"])) >= 0.9 - 1e-6
        assert [number_of(each) for each in one.pictures] == [number_of(each) for each in other.pictures]
        shown = [number_of(each) / RATE for each in one.pictures]
        assert shown == pytest.approx(one.info["seconds"], abs=0.05)
    assert len({loose.read(0, 2, np.random.default_rng(seed)).info["seconds"][0] for seed in range(9)}) > 3


def test_every_size_that_is_promised_can_be_read(tmp_path: Path) -> None:
    loose = VideoFrames(str(folder_of(tmp_path)), gap=0.3)
    for item in range(3):
        for seed in range(5):
            assert len(loose.read(item, loose.size(item), np.random.default_rng(seed))) == loose.size(item)
    assert END > 1 / RATE


def test_damaged_videos_are_quarantined(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "00000" / "00000.mp4").write_bytes(b"no video at all")
    (folder / "00000" / "00002.txt").unlink()
    found = VideoFrames(str(folder))
    assert found.size(0) == 1
    with pytest.raises(DataError, match=r"00000\.mp4 cannot be read"):
        found.read(0, 1, np.random.default_rng(0))
    with pytest.raises(DataError, match=r"00002\.mp4 has no caption"):
        found.read(2, 1, np.random.default_rng(0))
    mixture = Mixture([MixtureSource(found, sizes=(1,))], 16, quarantine=Quarantine(tmp_path / "bad.jsonl"))
    assert {mixture[place].captions for place in range(4)} == {("brighter and brighter 1",)}
    assert len(mixture.quarantine) == 2
    cut = (folder / "00000" / "00001.mp4").read_bytes()[:400]
    (folder / "00000" / "00001.mp4").write_bytes(cut)
    tar = shards_of(folder)
    assert load_index(str(tar))[1].seconds is None
    assert VideoFrames(str(tar), gap=0.1).size(1) == VideoFrames(str(folder / "00000"), gap=0.1).size(0) == 1
    with pytest.raises(UsageError, match="gap"):
        VideoFrames(str(tar), gap=0)
