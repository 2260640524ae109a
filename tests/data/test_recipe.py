"""Sources as a recipe names them."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from small_sets import picture, subject_set, write_shards

from jedi_diffusion.data.folders import SubjectFolders, write_subject
from jedi_diffusion.data.multiview import MultiviewAssets
from jedi_diffusion.data.recipe import Source, open_mixture, open_source
from jedi_diffusion.data.stored import SinglePictures, StoredSets
from jedi_diffusion.data.video import VideoFrames
from jedi_diffusion.errors import DataError

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
        assert isinstance(open_source(section, 64), wanted)
    video = READER.validate_python({"kind": "video", "place": str(tmp_path / "films"), "gap": 2.5})
    assert open_source(video, 64).gap == 2.5
    with pytest.raises(DataError, match="no videos"):
        open_source(READER.validate_python({"kind": "video", "place": str(tmp_path / "folders")}), 64)


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
