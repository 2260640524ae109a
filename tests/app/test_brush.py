"""Masks painted over photos, without the page."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.app.brush import MOST_UNDONE, Stroke, paint, read_strokes, set_mask, undo
from jedi_diffusion.app.session import Controls, Photo, Session, ask_of
from jedi_diffusion.errors import UsageError
from jedi_diffusion.references import Reference
from tests.helpers.fake_runners import CARD


def photo(width: int = 64, height: int = 32) -> Photo:
    return Photo(Image.new("RGB", (width, height), "gray"), "a.png")


def stroke(of: Photo, number: int, *points: tuple[float, float], erase: bool = False) -> Stroke:
    return Stroke(photo=of.key, number=number, radius=0.0625, erase=erase, points=list(points))


def test_a_stroke_is_a_line_with_round_ends() -> None:
    each = photo()
    paint(each, [stroke(each, 1, (0.25, 0.5), (0.75, 0.5))])
    rows, columns = np.mgrid[0:32, 0:64]
    beside = np.maximum(0, np.abs(columns - 32) - 16)
    apart = np.hypot(beside, rows - 16)
    mask = np.asarray(each.mask) == 255
    assert mask[apart < 3].all()
    assert not mask[apart > 5.5].any()


def test_what_is_painted_first_is_all_that_is_read_or_left_out() -> None:
    reads, erases = photo(), photo()
    paint(reads, [stroke(reads, 1, (0.5, 0.5))])
    paint(erases, [stroke(erases, 1, (0.5, 0.5), erase=True)])
    assert np.array_equal(np.asarray(reads.mask), 255 - np.asarray(erases.mask))
    assert 0 < np.asarray(reads.mask).mean() < 32


def test_strokes_are_drawn_once_and_of_their_photo_alone_and_taken_back_one_by_one() -> None:
    each, other = photo(), photo()
    first, second = stroke(each, 1, (0.25, 0.5)), stroke(each, 2, (0.75, 0.5))
    paint(each, [first])
    one = np.asarray(each.mask)
    paint(each, [first, stroke(other, 2, (0.5, 0.5)), second])
    two = np.asarray(each.mask)
    assert two.sum() == 2 * one.sum()
    set_mask(each, None)
    copy = replace(each)
    for expected in (two, one):
        undo(each)
        assert np.array_equal(np.asarray(each.mask), expected)
    for _ in range(2):  # once more than there is anything to take back
        undo(each)
        assert each.mask is None
    assert len(copy.undone) == 3
    paint(each, [stroke(each, number, (0.5, 0.5)) for number in range(3, 4 + MOST_UNDONE)])
    assert len(each.undone) == MOST_UNDONE


@pytest.mark.parametrize(
    "message",
    [
        "",
        "[" * 10_000,
        '{"a": 1}',
        "null",
        json.dumps([{"photo": "a", "number": 1, "radius": 0.1, "erase": True, "points": []}]),
        json.dumps([{"photo": "a", "number": 1, "radius": 0.1, "erase": True, "points": [[0.5, 1.5]]}]),
        json.dumps([{"photo": "a", "number": 1, "radius": 9e9, "erase": True, "points": [[0.5, 0.5]]}]),
        "[" + " " * 2**21 + "]",
    ],
)
def test_messages_that_no_brush_sends_are_refused(message: str) -> None:
    with pytest.raises(UsageError):
        read_strokes(message)


def test_what_is_asked_has_the_mask_of_the_crop_and_the_strength() -> None:
    each = photo()
    values = np.zeros((32, 64), dtype=np.uint8)
    values[:, :32] = 255
    each.mask, each.strength, each.across = Image.fromarray(values), 0.5, 0.5
    session = Session([photo(), each])
    whole, masked = ask_of(session, Controls(prompts="a"), CARD).references
    assert isinstance(whole, Image.Image)
    assert isinstance(masked, Reference)
    read = np.asarray(masked.mask)
    assert (masked.strength, read[:, :7].min(), read[:, 9:].max()) == (0.5, 255, 0)
    assert session.bytes == 3 * 2 * 64 * 32 + 64 * 32
    each.across = 1.0
    with pytest.raises(UsageError, match=r"Nothing of a\.png is read"):
        ask_of(session, Controls(prompts="a"), CARD)
