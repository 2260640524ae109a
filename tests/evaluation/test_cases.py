"""The protocols: which subjects, inputs, prompts and seeds; and the folder that pictures are scored from."""

import json
import os
import unicodedata
from pathlib import Path

import pytest

from jedi_diffusion.errors import DataError, UsageError
from jedi_diffusion.evaluation.dreambench import PICKS, open_dreambench
from jedi_diffusion.evaluation.layout import find_pictures
from jedi_diffusion.evaluation.own_subjects import open_own_subjects
from jedi_diffusion.files import json_bytes
from tests.helpers.small_benchmarks import make_clone, make_pictures, picture


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return make_clone(tmp_path / "dreambooth")


def test_dreambench_has_the_picks_the_prompts_and_the_classes(clone: Path) -> None:
    found = open_dreambench(clone, samples=2)
    assert open_dreambench(clone / "dataset", samples=2).plan() == found.plan()
    assert len(found.cases) == 3 * 2 * 2
    dog, can, bear = found.subjects
    assert (dog.kind, can.kind, bear.kind) == ("live", "object", "object")
    assert dog.prompts == ("a dog wearing a red hat", "a blue dog")
    assert bear.prompts == ("a stuffed animal in the snow", "a green stuffed animal")
    picks = {each.name: each.photos[found.inputs[each.name][0][0]].path.stem for each in found.subjects}
    assert picks == {name: PICKS[name] for name in ("dog6", "can", "bear_plushie")}
    case = found.cases[1]
    assert (case.name, case.group, case.text) == ("dog6/02/00_1", "dog6/02", "a dog wearing a red hat")
    first = found.plan()[1]
    assert first["file"] == "dog6/02/00_1.png"
    assert first["references"] == [str(clone / "dataset" / "dog6" / "02.jpg")]
    assert json.loads(json.dumps(found.settings))["inputs"] == "picks"


def test_all_inputs_take_every_photo_once_and_three_references_lead_with_it(clone: Path) -> None:
    single = open_dreambench(clone, inputs="all", samples=1)
    assert single.inputs["can"] == [(0,), (1,), (2,), (3,)]
    assert len(single.cases) == (3 + 4 + 5) * 2
    three = open_dreambench(clone, references=3, inputs="all", samples=1)
    bear = three.inputs["bear_plushie"]
    assert 2 <= len(bear) == len(set(bear)) <= 5
    assert all(len(set(each)) == 3 for each in bear)
    assert {number for each in bear for number in each} == set(range(5))
    assert three.inputs["dog6"] == [(0, 1, 2)]  # three photos: there is but one choice
    assert len({case.name for case in three.cases}) == len(three.cases)
    assert three.inputs == open_dreambench(clone, references=3, inputs="all", samples=1).inputs
    other = open_dreambench(clone, references=2, inputs="all", samples=1, seed=1)
    assert other.inputs != open_dreambench(clone, references=2, inputs="all", samples=1).inputs
    one = open_dreambench(clone, references=3, samples=1).inputs["bear_plushie"]
    assert len(one) == 1
    assert 3 in one[0]
    with pytest.raises(UsageError, match="dog6 has 3 photos, but 4 references"):
        open_dreambench(clone, references=4)


def test_seeds_differ_between_cases_and_depend_on_names_only(clone: Path) -> None:
    seeds = [case.seed for case in open_dreambench(clone, inputs="all").cases]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    some = open_dreambench(clone, subjects=("can",)).cases
    assert {case.name: case.seed for case in some}.items() <= {
        case.name: case.seed for case in open_dreambench(clone).cases
    }.items()


def test_a_clone_with_faults_is_named(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no subject 'cow'"):
        open_dreambench(clone, subjects=("cow",))
    (clone / "dataset" / "cow").mkdir()
    with pytest.raises(DataError, match="has the folder cow"):
        open_dreambench(clone)
    (clone / "dataset" / "cow").rename(tmp_path / "cow")
    for path in (clone / "dataset" / "can").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="can holds no photos"):
        open_dreambench(clone)
    (clone / "dataset" / "can").rmdir()
    with pytest.raises(DataError, match=r"dataset.can is missing"):
        open_dreambench(clone)
    (clone / "dataset" / "prompts_and_classes.txt").write_text("Classes\n\ncan,can\n")
    with pytest.raises(DataError, match="does not list classes and prompts"):
        open_dreambench(clone)
    with pytest.raises(DataError, match="Give a clone of"):
        open_dreambench(tmp_path / "nowhere")


def test_the_real_dreambench(dreambench: Path) -> None:
    found = open_dreambench(dreambench.parent)
    assert len(found.subjects) == 30
    assert sum(len(each.photos) for each in found.subjects) == 158
    assert sum(each.kind == "live" for each in found.subjects) == 9
    assert {len(each.prompts) for each in found.subjects} == {25}
    assert len(found.cases) == 3000
    assert len(open_dreambench(dreambench, inputs="all", samples=1).cases) == 158 * 25
    assert not any("{" in text or "  " in text for each in found.subjects for text in each.prompts)
    assert set(PICKS) == {each.name for each in found.subjects}


def own(folder: Path) -> Path:
    for name in ("cat_statue", "mug2"):
        (folder / name).mkdir(parents=True)
        picture(1).save(folder / name / "photo.png")
    return folder


def test_own_subjects_need_one_photo_and_prompts(tmp_path: Path) -> None:
    folder = own(tmp_path / "own")
    with pytest.raises(DataError, match=r"no prompts for cat_statue: write .*prompts\.txt"):
        open_own_subjects(folder)
    (folder / "prompts.txt").write_text("\ufeffa {} in the\u2028snow\n\na red {}\n", encoding="utf-8")
    found = open_own_subjects(folder, samples=1)
    assert [case.name for case in found.cases][:2] == ["cat_statue/photo/00_0", "cat_statue/photo/01_0"]
    assert found.subjects[0].prompts == ("a cat statue in the\u2028snow", "a red cat statue")
    assert found.subjects[1].noun == "mug"
    (folder / "mug2" / "subject.json").write_text('{"class": "owl cup", "kind": "odd", "prompts": ["an {}"]}')
    mug = open_own_subjects(folder).subjects[1]
    assert (mug.noun, mug.kind, mug.prompts, mug.caption) == ("owl cup", "odd", ("an owl cup",), "an owl cup")


def test_own_subjects_have_inputs_masks_and_truths(tmp_path: Path) -> None:
    folder = own(tmp_path / "own")
    home = folder / "mug2"
    (folder / "prompts.txt").write_text("a {} in the snow\na red {}\n")
    picture(2).save(home / "other.png")
    picture(3).convert("L").save(home / "other.mask.png")
    (home / "subject.json").write_text('{"inputs": ["photo"]}')
    mug = open_own_subjects(folder, inputs="all")
    assert mug.inputs["mug2"] == [(1,)]
    assert [photo.mask for photo in mug.subjects[1].photos] == [home / "other.mask.png", None]
    (home / "truth").mkdir()
    picture(4).save(home / "truth" / "00.png")
    with pytest.raises(DataError, match="a picture for each of the 2 prompts"):
        open_own_subjects(folder)
    picture(5).save(home / "truth" / "01.png")
    assert [each.path.stem for each in open_own_subjects(folder).subjects[1].truths] == ["00", "01"]


def test_a_hundred_and_one_truths_are_counted_in_natural_order(tmp_path: Path) -> None:
    folder = own(tmp_path / "own")
    home = folder / "mug2"
    (home / "truth").mkdir()
    (folder / "prompts.txt").write_text("".join(f"a {{}} number {number}\n" for number in range(101)))
    for number in range(101):
        (home / "truth" / f"{number:02d}.png").touch()
    truths = open_own_subjects(folder).subjects[1].truths
    assert [each.stem for each in truths] == [f"{number:02d}" for number in range(101)]


def test_names_match_whether_composed_or_not_and_marks_are_dropped(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    home = tmp_path / "own" / decomposed
    (home / ".ipynb_checkpoints").mkdir(parents=True)
    picture(1).save(home / f"{decomposed}.png")
    picture(2, 8).convert("L").save(home / f"{composed}.mask.png")
    (tmp_path / "own" / "@eaDir").mkdir()
    record = {"class": "bar", "prompts": ["a {} at night"], "inputs": [composed]}
    (home / "subject.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(record).encode())
    wanted = open_own_subjects(tmp_path / "own", samples=1)
    (subject,) = wanted.subjects
    assert (subject.name, subject.prompts) == (composed, ("a bar at night",))
    assert subject.photos[0].mask == home / f"{composed}.mask.png"
    (case,) = wanted.cases
    assert case.name == f"{composed}/{composed}/00_0"
    for spelling in (composed, decomposed):
        made = tmp_path / f"made {spelling.encode().hex()}"
        (made / spelling / spelling).mkdir(parents=True)
        (made / "@eaDir" / spelling).mkdir(parents=True)
        picture(3).save(made / spelling / spelling / "00_0.png")
        (made / spelling / spelling / "._00_0.png").touch()
        assert find_pictures(made, wanted) == {case: made / spelling / spelling / "00_0.png"}


def test_names_that_are_not_utf8_are_said_or_written_plainly(tmp_path: Path) -> None:
    home = os.fsencode(tmp_path) + b"/own/k\xfch"
    os.makedirs(home)
    picture(1).save(os.fsdecode(home + b"/caf\xe9.png"))
    (tmp_path / "own" / "prompts.txt").write_text("a {}\n")
    with pytest.raises(DataError, match="is not UTF-8, so it cannot be the class"):
        open_own_subjects(tmp_path / "own")
    Path(os.fsdecode(home + b"/subject.json")).write_text('{"class": "cow"}')
    (case, *_) = open_own_subjects(tmp_path / "own").cases
    assert case.name == r"k\xfch/caf\xe9/00_0"
    assert json_bytes(open_own_subjects(tmp_path / "own").plan()).decode()
    assert case.seed >= 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"colour": "red"}', "wrong at colour"),
        ("[]", "wrong at its top level"),
        ('{"inputs": ["nothing"]}', "lists the input nothing"),
    ],
)
def test_own_subjects_name_a_wrong_record(tmp_path: Path, text: str, message: str) -> None:
    folder = own(tmp_path / "own")
    (folder / "prompts.txt").write_text("a {}\n")
    (folder / "mug2" / "subject.json").write_text(text)
    with pytest.raises(DataError, match=message):
        open_own_subjects(folder)


def test_pictures_are_found_for_every_case(clone: Path, tmp_path: Path) -> None:
    wanted = open_dreambench(clone, samples=2)
    folder = make_pictures(tmp_path / "made", wanted)
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".cache").mkdir()
    (folder / "@eaDir").mkdir()
    (folder / "can" / "01" / "00_0.png").rename(folder / "can" / "01" / "00_0.webp")
    found = find_pictures(folder, wanted)
    assert list(found) == list(wanted.cases)
    assert all(path.with_suffix("") == folder / case.name for case, path in found.items())


def test_what_is_wrong_with_the_pictures_is_named(clone: Path, tmp_path: Path) -> None:
    wanted = open_dreambench(clone, samples=2)
    folder = make_pictures(tmp_path / "made", wanted)
    with pytest.raises(DataError, match="There is no folder of pictures"):
        find_pictures(tmp_path / "nowhere", wanted)
    for name in ("00_1", "01_0"):
        (folder / "can" / "01" / f"{name}.png").rename(folder / f"{name}.png")
    with pytest.raises(
        DataError, match=r"can.01.00_1\.png is missing \(and 1 more\): 12 pictures are needed .* 10 are there"
    ):
        find_pictures(folder, wanted)
    for name in ("00_1", "01_0"):
        (folder / f"{name}.png").rename(folder / "can" / "01" / f"{name}.png")
    picture(1).save(folder / "can" / "01" / "00_2.png")
    with pytest.raises(DataError, match=r"can.01.00_2\.png belongs to no case"):
        find_pictures(folder, wanted)
    (folder / "can" / "01" / "00_2.png").rename(folder / "can" / "01" / "00_1.jpg")
    with pytest.raises(DataError, match=r"can.01.00_1 is there twice, as 00_1\.jpg and 00_1\.png"):
        find_pictures(folder, wanted)
    (folder / "can" / "01" / "00_1.jpg").unlink()
    (folder / "cow").mkdir()
    with pytest.raises(DataError, match="cow is of no subject of dreambench; its subjects are dog6, can"):
        find_pictures(folder, wanted)
