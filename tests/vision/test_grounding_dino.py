"""Grounding DINO: boxes, thresholds, and that neither sizes nor names of a batch mix."""

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, GroundingDinoForObjectDetection

from jedi_diffusion.vision.detection import Box, Detection
from jedi_diffusion.vision.grounding_dino import GroundingDinoDetector, phrase
from jedi_diffusion.vision.settings import GroundingDinoSettings

NAMES = ["teapot", "Fire truck", "a teapot", "truck", "fire truck"]


@pytest.fixture(scope="module")
def folder(checkpoint):
    return checkpoint("grounding_dino")


def make(folder, **changes):
    given = {"model": str(folder), "box_threshold": 0.0, "text_threshold": 0.0}
    return GroundingDinoDetector(GroundingDinoSettings(**{**given, **changes}), "cpu")


@pytest.fixture(scope="module")
def by_hand(folder):
    """Of every query its best score, its best word's, and its box, from the output for one picture."""
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def queries(picture, name):
        words = tokenizer([f"{name.lower()}."], return_tensors="pt")
        with torch.no_grad():
            out = model(**processor(picture, return_tensors="pt"), **words)
        places = [place for place, number in enumerate(words["input_ids"][0].tolist()) if number >= 2000]
        for logits, (x, y, w, h) in zip(
            out.logits[0].sigmoid().tolist(), out.pred_boxes[0].tolist(), strict=True
        ):
            edges = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            corners = np.clip(edges, 0, 1) * np.tile(picture.size, 2)
            yield max(logits), max(logits[place] for place in places), Box(*corners.tolist())

    return lambda picture, name: sorted(queries(picture, name), key=lambda query: -query[0])


def assert_same(one, other):
    assert [len(each) for each in one] == [len(each) for each in other]
    for each, twin in zip(one, other, strict=True):
        for found, again in zip(each, twin, strict=True):
            assert found.score == pytest.approx(again.score, abs=1e-4)
            assert vars(found.box) == pytest.approx(vars(again.box), abs=1e-2)


@pytest.mark.parametrize("number", [0, 1])
def test_boxes_are_those_of_the_models_output(folder, pictures, by_hand, number):
    picture, name = pictures[number], NAMES[number]
    queries = by_hand(picture, name)
    for box_threshold, text_threshold in [
        (0.0, 0.0),
        (np.median([score for score, _, _ in queries]), 0.0),
        (0.0, np.median([word for _, word, _ in queries])),
    ]:
        detector = make(folder, box_threshold=box_threshold, text_threshold=text_threshold)
        wanted = [
            Detection(box, score)
            for score, word, box in queries
            if score > box_threshold and word > text_threshold
            if box.right - box.left >= 1 and box.bottom - box.top >= 1
        ]
        assert len(wanted) >= 3
        assert_same(detector.detect([picture], [name]), [wanted])


def test_a_picture_gets_the_same_in_any_batch(folder, pictures):
    together = make(folder).detect(pictures, NAMES)
    assert sum(map(len, together)) > len(pictures)
    alone = make(folder, batch_size=1)
    assert_same(
        together, [alone.detect([picture], [name])[0] for picture, name in zip(pictures, NAMES, strict=True)]
    )
    assert_same(together, make(folder, batch_size=2).detect(pictures[::-1], NAMES[::-1])[::-1])


def test_boxes_are_inside_and_the_surest_come_first(folder, pictures):
    for picture, found in zip(pictures, make(folder, max_boxes=2).detect(pictures, NAMES), strict=True):
        assert len(found) <= 2
        assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
        for each in found:
            assert 0 <= each.box.left < each.box.right <= picture.width
            assert 0 <= each.box.top < each.box.bottom <= picture.height


def test_thresholds_ask_for_a_box_and_for_a_word_of_the_name(folder):
    detector = make(folder, box_threshold=0.5, text_threshold=0.3)
    is_word = torch.tensor([False, True, True, False, False])  # [CLS] fire truck . [SEP]
    rows = {
        (0.9, 0.1, 0.1, 0.2, 0.0): None,  # no word of the name
        (0.4, 0.45, 0.1, 0.2, 0.0): None,  # not sure enough
        (0.1, 0.2, 0.6, 0.1, 0.0): 0.6,
        (0.8, 0.35, 0.1, 0.1, 0.0): 0.8,
    }
    boxes = torch.tensor([[0.5, 0.25, 0.5, 0.5]]).repeat(len(rows), 1)
    found = detector._read(torch.tensor(list(rows)), is_word, boxes, (40, 80))
    assert [each.score for each in found] == pytest.approx([0.8, 0.6])
    assert found[0].box == Box(10, 0, 30, 40)


def test_where_nothing_is_sure_nothing_is_found(folder, pictures):
    assert make(folder, box_threshold=0.9999).detect(pictures, NAMES) == [[]] * 5


def test_boxes_of_less_than_a_pixel_are_left_out(folder):
    boxes = torch.tensor([[0.5, 0.5, 0.01, 0.5], [1.0, 0.5, 0.02, 0.5], [0.5, 0.5, 0.02, 0.5]])
    chances, word = torch.full((3, 1), 0.9), torch.tensor([True])
    assert [each.box for each in make(folder)._read(chances, word, boxes, (64, 64))] == [
        Box(pytest.approx(31.36), 16, pytest.approx(32.64), 48)
    ]


def test_a_full_stop_in_a_name_does_not_cut_it():
    assert phrase("St. Bernard") == "st bernard."
    assert phrase("Teapot") == "teapot."
