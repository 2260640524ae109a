"""SAM: the mask with the highest predicted IoU, for any number of boxes, in any batch."""

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, SamModel, SamProcessor

from jedi_diffusion.vision.detection import Box
from jedi_diffusion.vision.sam import SamSegmenter, best_masks
from jedi_diffusion.vision.settings import SamSettings

BOXES = [
    [Box(6, 8, 40, 40), Box(0, 0, 64, 64), Box(20.5, 3.25, 50, 60)],
    [Box(10, 8, 40, 41)],
    [],
    [Box(2, 2, 30, 30), Box(30, 10, 70, 50)],
    [Box(1, 1, 5, 5)],
]


@pytest.fixture(scope="module")
def folder(checkpoint):
    return checkpoint("sam")


def make(folder, **changes):
    return SamSegmenter(SamSettings(**{"model": str(folder), **changes}), "cpu")


def by_hand(model, processor, picture, boxes):
    """All choices at full size through transformers' own processor, then the best by its score."""
    corners = [[[each.left, each.top, each.right, each.bottom] for each in boxes]]
    given = processor(images=picture, input_boxes=corners, return_tensors="pt")
    given["input_boxes"] = given["input_boxes"].float()
    with torch.no_grad():
        out = model(**given)
    (masks,) = processor.post_process_masks(
        out.pred_masks, given["original_sizes"], given["reshaped_input_sizes"]
    )
    best = out.iou_scores[0].argmax(dim=1)
    return [masks[number, choice].numpy() for number, choice in enumerate(best.tolist())]


def differing(one, other):
    assert one.shape == other.shape
    return np.mean(one != other)


def test_masks_are_the_best_of_the_models_choices(folder, pictures):
    model = SamModel.from_pretrained(folder).eval()
    processor = SamProcessor(AutoImageProcessor.from_pretrained(folder, backend="pil"))
    masks = make(folder).segment(pictures, BOXES)
    assert [len(each) for each in masks] == [3, 1, 0, 2, 1]
    for picture, boxes, each in zip(pictures, BOXES, masks, strict=True):
        assert all(mask.shape == (picture.height, picture.width) and mask.dtype == np.bool_ for mask in each)
        if boxes:
            wanted = by_hand(model, processor, picture, boxes)
            assert all(differing(*pair) < 1e-3 for pair in zip(each, wanted, strict=True))
    assert len({mask.tobytes() for each in masks for mask in each}) > 3


def test_a_picture_gets_the_same_in_any_batch(folder, pictures):
    together = make(folder).segment(pictures, BOXES)
    alone = make(folder, batch_size=1, box_batch=1).segment(pictures[::-1], BOXES[::-1])[::-1]
    for each, twin in zip(together, alone, strict=True):
        assert all(differing(*pair) < 1e-3 for pair in zip(each, twin, strict=True))


def test_the_choice_is_made_for_each_box():
    masks = torch.arange(6.0).reshape(2, 3, 1, 1)
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.8, 0.2, 0.3]])
    assert best_masks(masks, scores).flatten().tolist() == [1.0, 3.0]


def test_the_fingerprint_says_what_decides(folder):
    first = make(folder).fingerprint
    assert first.startswith("SamModel blake2b:")
    assert make(folder, batch_size=1).fingerprint == first
