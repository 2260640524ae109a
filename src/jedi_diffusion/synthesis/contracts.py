"""Checks that a model's answers have the form that its protocol promises, before they are built upon."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TypeVar

import numpy as np
from PIL import Image

from jedi_diffusion.errors import ModelError
from jedi_diffusion.vision.detection import Mask, Model

Answers = TypeVar("Answers", bound=Sized)


def one_each(model: Model, answers: Answers, count: int) -> Answers:
    """`answers`, after a check that there are `count`. Raises ModelError naming the model."""
    if len(answers) != count:
        raise ModelError(f"{model.fingerprint} gave {len(answers)} results for {count} items.")
    return answers


def checked_pictures(
    model: Model, pictures: Sequence[Image.Image], sizes: Sequence[tuple[int, int]]
) -> Sequence[Image.Image]:
    """`pictures`, after a check that they are RGB and of these sizes (W, H). Raises ModelError."""
    for picture, size in zip(one_each(model, pictures, len(sizes)), sizes, strict=True):
        if picture.mode != "RGB" or picture.size != size:
            raise ModelError(
                f"{model.fingerprint} gave a picture of mode {picture.mode} and size {picture.size}, "
                f"but an RGB picture of size {size} was asked for."
            )
    return pictures


def checked_masks(model: Model, masks: Sequence[Mask], size: tuple[int, int]) -> Sequence[Mask]:
    """`masks`, after a check that they are boolean, for a picture of `size` (W, H). Raises ModelError."""
    for mask in masks:
        if mask.dtype != np.bool_ or mask.shape != size[::-1]:
            raise ModelError(
                f"{model.fingerprint} gave a mask of type {mask.dtype} and shape {mask.shape}, "
                f"but a boolean one of shape {size[::-1]} was asked for."
            )
    return masks
