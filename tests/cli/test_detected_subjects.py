"""Grounding DINO and SAM as the scorer's finder: by hand, and through `jedi evaluate` on tiny checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.evaluation.dreambench import open_dreambench
from jedi_diffusion.evaluation.judging import load_finder
from jedi_diffusion.evaluation.own_subjects import open_own_subjects
from jedi_diffusion.evaluation.scoring import COPY_INPUT
from jedi_diffusion.vision.detection import Box, DetectedSubject, Detection, SubjectFinder
from tests.helpers import small_adapters
from tests.helpers.scoring_encoders import save_clip, save_dino
from tests.helpers.small_benchmarks import make_clone, make_pictures, picture


class Boxes:
    """Detects what it was told, by name."""

    fingerprint = "boxes"

    def __init__(self, **known: list[Detection]) -> None:
        self.known = known

    def detect(self, pictures, names):
        return [self.known.get(name, []) for name in names]


class Fill:
    """The whole box is the thing."""

    fingerprint = "fill"

    def segment(self, pictures, boxes):
        return [
            [self._mask(picture, box) for box in each] for picture, each in zip(pictures, boxes, strict=True)
        ]

    @staticmethod
    def _mask(picture, box):
        rows, columns = np.mgrid[: picture.height, : picture.width]
        return (columns >= box.left) & (columns < box.right) & (rows >= box.top) & (rows < box.bottom)


def test_the_surest_box_counts_and_nothing_is_an_empty_mask() -> None:
    unsure, sure = Detection(Box(0, 0, 9, 9), 0.4), Detection(Box(2, 1, 5, 4), 0.8)
    finder: SubjectFinder = DetectedSubject(Boxes(dog=[unsure, sure], can=[unsure]), Fill())
    wide, small = Image.new("RGB", (20, 10)), Image.new("RGB", (12, 12))
    dog, nothing, can = finder.find([wide, small, small], ["dog", "robot", "can"])
    assert dog.shape == (10, 20)
    assert dog[1:4, 2:5].all()
    assert dog.sum() == 9
    assert nothing.shape == (12, 12)
    assert not nothing.any()
    assert can.sum() == 81
    assert finder.fingerprint == "surest box of boxes, segmented by fill"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("models")
    return {
        "--clip": save_clip(home / "clip"),
        "--dino": save_dino(home / "dino"),
        "--detector": small_adapters.save_grounding_dino(home / "detector"),
        "--segmenter": small_adapters.save_sam(home / "segmenter"),
    }


def test_masks_are_sams_in_grounding_dinos_surest_box(models) -> None:
    finder = load_finder(
        "found", ["pretrained"], "cpu", str(models["--detector"]), str(models["--segmenter"])
    )
    shown = [picture(1, 64), picture(2, 48)]
    masks = finder.find(shown, ["teapot", "truck"])
    for one, name, mask in zip(shown, ["teapot", "truck"], masks, strict=True):
        (found,) = finder.detector.detect([one], [name])
        assert found, "random models find something"
        assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
        ((expected,),) = finder.segmenter.segment([one], [[found[0].box]])
        assert mask.dtype == np.bool_
        assert mask.shape == (one.height, one.width)
        assert np.array_equal(mask, expected)


def test_masked_scores_of_photographs_need_no_given_masks(jedi, models, tmp_path) -> None:
    """Teapots are found by the class that their folder names; "can" is no word of the small detector."""
    for number, noun in enumerate(("teapot", "can")):
        home = tmp_path / "data" / noun
        home.mkdir(parents=True)
        for photo in (0, 1):
            picture(2 * number + photo).save(home / f"{photo:02d}.png")
        record = {"class": noun, "prompts": ["a {} in the snow"], "inputs": ["00"]}
        (home / "subject.json").write_text(json.dumps(record))
    made = make_pictures(tmp_path / "made", open_own_subjects(tmp_path / "data", samples=1))
    words = ["evaluate", "score", "--protocol", "folder", "--data", tmp_path / "data", "--samples", 1]
    words += ["--pictures", made, "--device", "cpu", "--masks", "found", "--out", tmp_path / "out"]
    done = jedi(*words, *(word for pair in models.items() for word in pair))
    assert done.status == 0, done.err
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert record["methods"][-1]["scores"].keys() >= {"MCLIP-I, others", "MDINO, inputs"}
    (copy,) = [method for method in record["methods"] if method["name"] == COPY_INPUT]
    copied = copy["scores"]["MDINO, inputs"]["mean"]
    assert copied == pytest.approx(0.5, abs=1e-4), "1 for the teapot, 0 where nothing is found"


def test_a_detector_of_another_kind_is_named(jedi, models, tmp_path) -> None:
    clone = make_clone(tmp_path / "data")
    made = make_pictures(tmp_path / "made", open_dreambench(clone, samples=1))
    words = ["evaluate", "score", "--data", clone, "--samples", 1, "--pictures", made, "--device", "cpu"]
    wrong = {**models, "--detector": models["--segmenter"]}
    words += [*(word for pair in wrong.items() for word in pair), "--masks", "found"]
    done = jedi(*words, "--out", tmp_path / "out")
    assert done.status == 1
    assert "is of type sam, but the detector needs a grounding-dino" in done.err
