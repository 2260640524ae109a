"""The paper's set format: stacked pictures and separated captions, there and back."""

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.data.record import (
    check_captions,
    join_captions,
    set_size,
    split_captions,
    stack,
    unstack,
)
from jedi_diffusion.errors import DataError, UsageError


def squares(count: int, side: int = 6, mode: str = "RGB") -> list[Image.Image]:
    values = np.random.default_rng(0).integers(0, 255, (count, side, side, len(mode)), dtype=np.uint8)
    return [Image.fromarray(each if len(mode) > 1 else each[..., 0]) for each in values]


@pytest.mark.parametrize("count", [1, 2, 4, 7])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_come_back(count: int, mode: str) -> None:
    pictures = squares(count, mode=mode)
    stacked = stack(pictures)
    assert (np.asarray(stacked) == np.concatenate([np.asarray(each) for each in pictures])).all()
    again = unstack(stacked, "x")
    assert [np.asarray(each).tolist() for each in again] == [np.asarray(each).tolist() for each in pictures]


def test_captions_come_back() -> None:
    captions = ("a dog", "", "two\nlines, <|spl|it>")
    assert join_captions(captions) == "a dog<|split|><|split|>two\nlines, <|spl|it>"
    assert split_captions(join_captions(captions)) == captions
    assert split_captions(" a dog \n<|split|> a cat\n") == ("a dog", "a cat")
    with pytest.raises(UsageError, match="separates"):
        join_captions(["a", "b<|split|>c"])


@pytest.mark.parametrize(("width", "height"), [(4, 6), (4, 3), (0, 4), (3, 10)])
def test_heights_that_are_no_multiple_are_refused(width: int, height: int) -> None:
    with pytest.raises(DataError, match=rf"here is {width}x{height}"):
        set_size(width, height, "here")


def test_faults_say_the_numbers() -> None:
    with pytest.raises(DataError, match="s1 holds 3 pictures but 2 captions"):
        check_captions(3, ("a", "b"), "s1")
    with pytest.raises(UsageError, match="number 1 is 5x5 RGB in a set that begins with 6 RGB"):
        stack([*squares(1), *squares(1, 5)])
    with pytest.raises(UsageError, match="number 0 is 6x12"):
        stack([stack(squares(2))])
    with pytest.raises(UsageError, match="at least one"):
        stack([])
