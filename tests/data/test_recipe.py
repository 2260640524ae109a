"""Sources as a recipe names them."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from jedi_diffusion.data.collection import SetCollection
from jedi_diffusion.data.folders import SubjectFolders, write_subject
from jedi_diffusion.data.mixture import square_set
from jedi_diffusion.data.multiview import MultiviewAssets
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.recipe import Source, open_mixture
from jedi_diffusion.data.shards import build_index, save_index
from jedi_diffusion.data.stored import SinglePictures, StoredSets
from jedi_diffusion.data.video import VideoFrames
from jedi_diffusion.errors import DataError
from tests.helpers.small_sets import encoded, picture, subject_set, write_shards

READER: TypeAdapter = TypeAdapter(Source)


def test_each_kind_opens_its_collection(tmp_path: Path) -> None:
    write_shards(tmp_path / "tars")
    write_subject(tmp_path / "folders" / "a", subject_set(1, 2))
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").touch()
    kinds = {
        "sets": ("tars", StoredSets),
        "single": ("tars", SinglePictures),
        "video": ("films", VideoFrames),
        "folders": ("folders", SubjectFolders),
        "multiview": ("folders", MultiviewAssets),
    }
    for kind, (place, wanted) in kinds.items():
        section = READER.validate_python({"kind": kind, "place": str(tmp_path / place)})
        assert isinstance(section.open(64), wanted)
    video = READER.validate_python({"kind": "video", "place": str(tmp_path / "films"), "gap": 2.5})
    assert video.open(64).gap == 2.5
    with pytest.raises(DataError, match="no videos"):
        READER.validate_python({"kind": "video", "place": str(tmp_path / "folders")}).open(64)


def test_what_a_section_says_reaches_its_collection(tmp_path: Path) -> None:
    """Where quarantine goes, the size that pictures are decoded for, backgrounds and the name of latents."""

    def opened(kind: str, place: str, quarantine: Quarantine | None = None, **more: str) -> SetCollection:
        section = READER.validate_python({"kind": kind, "place": str(tmp_path / place), **more})
        return section.open(70, quarantine)

    write_shards(tmp_path / "tars", (2, 2), per_shard=1)
    (tmp_path / "tars" / "00000.tar.index.jsonl").unlink()
    for kind in ("sets", "single", "video"):
        with pytest.raises(DataError, match=r"00000\.tar has no index"):
            opened(kind, "tars")
        quarantine = Quarantine()
        assert len(opened(kind, "tars", quarantine)) == 1
        assert len(quarantine) == 1
    large = encoded(Image.new("RGB", (400, 300)), "JPEG")
    (tmp_path / "folders" / "a").mkdir(parents=True)
    (tmp_path / "folders" / "a" / "0.jpg").write_bytes(large)
    (tmp_path / "folders" / "a" / "1.jpg").write_bytes(b"x")
    with tarfile.open(tmp_path / "large.tar", "w") as archive:
        for name, data in (("0.jpg", large), ("0.txt", b"a wall")):
            (entry := tarfile.TarInfo(name)).size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    save_index(tmp_path / "large.tar", build_index(tmp_path / "large.tar"))
    for kind, place in (("folders", "folders"), ("single", "large.tar")):
        for seed in range(4):
            read = opened(kind, place, quarantine).read(0, 1, np.random.default_rng(seed))
            assert read.pictures[0].size == (100, 75)
    assert len(quarantine) == 2
    with pytest.raises(DataError, match="nowhere"):
        opened("multiview", "folders", backgrounds=str(tmp_path / "nowhere"))
    for kind, place in (("sets", "tars"), ("single", "large.tar")):
        with pytest.raises(
            DataError, match=r"\.tar has no latents called 'fine' .* `jedi data encode` makes them"
        ):
            opened(kind, place, quarantine, encoded="fine")


def test_files_that_are_left_out_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_subject(tmp_path / "a", subject_set(1, 2))
    section = READER.validate_python({"kind": "folders", "place": str(tmp_path)})
    section.open(64)
    assert caplog.messages == []
    for name in ("7.txt", "9.txt"):
        (tmp_path / "a" / name).touch()
    section.open(64)
    first = f"{tmp_path}/a/7.txt has no picture of its name beside it."
    assert caplog.messages == [
        f"2 files of {tmp_path} are left out; the first: {first} `jedi data check` names all."
    ]


def test_a_mixture_has_what_its_sources_have(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8))
        (tmp_path / name / "0.jpg").write_bytes(encoded(photo, "JPEG"))
    sources = [READER.validate_python({"kind": "folders", "place": str(tmp_path)})]
    quarantine = Quarantine()
    mixture = open_mixture(sources, 16, quarantine=quarantine)
    assert mixture.quarantine is quarantine
    expected = square_set(SubjectFolders(tmp_path, 16).pictures(0, [0]), 16).pictures[0]  # decoded reduced
    assert np.asarray(mixture[0].pictures[0]).tolist() == np.asarray(expected).tolist()
    names = [
        [each[place].captions for place in range(20)] for each in (mixture, open_mixture(sources, 16, 0))
    ]
    assert names[0] == names[1]
    (tmp_path / "a" / "0.jpg").write_bytes(b"x")
    assert {mixture[place].captions for place in range(8)} == {("b",)}
    assert next(item for _, item in quarantine.reasons()) == str(tmp_path / "a" / "0.jpg")


def test_a_mixture_of_kinds(tmp_path: Path) -> None:
    write_shards(tmp_path / "tars", (4, 4))
    for name in ("x", "y"):
        (tmp_path / "views" / name).mkdir(parents=True)
        (tmp_path / "views" / name / "a.txt").write_text(name)
        picture(1).save(tmp_path / "views" / name / "0.png")
    sources = [
        READER.validate_python({"kind": "sets", "place": str(tmp_path / "tars"), "sizes": [3]}),
        READER.validate_python({"kind": "multiview", "place": str(tmp_path / "views"), "probability": 3}),
    ]
    mixture = open_mixture(sources, resolution=16, seed=1)
    made = [mixture[place] for place in range(40)]
    assert {(each.info["source"], len(each)) for each in made} == {
        (str(tmp_path / "tars"), 3),
        (str(tmp_path / "views"), 1),
    }
    assert sum(len(each) == 1 for each in made) > 20
    assert {image.size for each in made for image in each.pictures} == {(16, 16)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "sets"},
        {"kind": "laion", "place": "x"},
        {"kind": "sets", "place": "x", "gap": 1},
        {"kind": "sets", "place": "x", "sizes": []},
        {"kind": "sets", "place": "x", "sizes": [0]},
        {"kind": "sets", "place": "x", "probability": 0},
        {"kind": "video", "place": "x", "gap": -1},
    ],
)
def test_wrong_sections_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        READER.validate_python(wrong)
