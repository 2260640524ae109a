"""Squares for training: the centre, masks along with their pictures."""

import numpy as np
from PIL import Image

from jedi_diffusion.data.mixture import square_set
from jedi_diffusion.sets import ImageSet


def test_the_centre_is_kept_and_masks_stay_on_the_subject() -> None:
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 30:70] = 200  # the central square
    mask = np.zeros((40, 100), np.uint8)
    mask[:20, 30:50] = 255  # its upper left quarter
    given = ImageSet((Image.fromarray(wide),), ("a",), "thing", masks=(Image.fromarray(mask),), info={"n": 1})
    made = square_set(given, 20)
    assert np.abs(np.asarray(made.pictures[0]).astype(int) - 200).max() < 15  # the filter sees past the edge
    quarters = np.asarray(made.masks[0]).reshape(2, 10, 2, 10).mean((1, 3))
    assert quarters[0, 0] > 245
    assert quarters[1, 1] < 10
    assert abs(quarters[0, 1] - quarters[1, 0]) < 1
    assert made.info == {"n": 1, "subject": "thing"}


def test_without_masks_there_are_none() -> None:
    given = ImageSet((Image.new("RGB", (9, 14)), Image.new("RGB", (8, 8))), ("a", "b"))
    made = square_set(given, 16)
    assert made.masks is None
    assert [each.size for each in made.pictures] == [(16, 16)] * 2


def test_a_mask_is_halved_by_a_triangle() -> None:
    """Bilinear with antialiasing: a column is seen by the pixels within two of its own, by a triangle."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 3] = 240
    given = ImageSet((Image.new("RGB", (8, 8)),), ("a",), masks=(Image.fromarray(mask),))
    (made,) = square_set(given, 4).masks
    assert (np.asarray(made) == [0, 240 * 3 / 8, 240 / 8, 0]).all()
