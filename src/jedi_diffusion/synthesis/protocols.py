"""What synthesis asks of models, and checks of their answers.

Any object with these methods serves; adapters wrap real models.
Letters: B items in a batch; K boxes in a picture; W, H a picture's width and height in pixels; D numbers of
an embedding.

All methods take batches and answer in the same order with one result an item. Item b may depend on nothing
but its own arguments and seed, so that neither the batch nor the number of workers changes a result. A
method raises ModelError when the model cannot do its work at all.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jedi_diffusion.errors import ModelError
from jedi_diffusion.vision.detection import Detector, Mask, Model, Segmenter

Answers = TypeVar("Answers", bound=Sized)

TRUTH = "truth"
"""Under this name `Image.info` of a generated collage may say what was drawn, for generators that know it:
{"panels": [{"subject": name, "box": [left, top, right, bottom], "whole": bool}, ...]}, in pixels. It goes
into the provenance, where a report measures the filters by it; no stage reads it."""


@dataclass(frozen=True)
class Failure:
    """Stands for the answer to one item that failed while others of the batch did not."""

    detail: str


class PromptWriter(Model, Protocol):
    """A language model that follows instructions (ChatGPT in the paper)."""

    def write(self, requests: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """B answers to B requests, as the model gave them; a Failure for each that has none."""
        ...


class ImageGenerator(Model, Protocol):
    """A text-to-image model (SDXL in the paper; G in Algorithm 1)."""

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int]
    ) -> list[Image.Image]:
        """B RGB pictures of `size` = (W, H)."""
        ...


class ImageEmbedder(Model, Protocol):
    """An image encoder whose cosine similarity says how alike two pictures are (CLIP in the paper)."""

    def embed(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return (B, D) of any length but 0, from square RGB pictures of any size."""
        ...


class Inpainter(Model, Protocol):
    """A text-based inpainting model (Stable Diffusion inpainting in the paper; G_I in Algorithm 1)."""

    def inpaint(
        self,
        pictures: Sequence[Image.Image],
        masks: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """B RGB pictures of their inputs' sizes, filled where the mask (mode "L") is 255, kept where 0."""
        ...


class Stylizer(Model, Protocol):
    """An instruction-following image editor (InstructPix2Pix in the paper)."""

    def stylize(
        self, pictures: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """B RGB pictures of their inputs' sizes, with everything where it was."""
        ...


class Captioner(Model, Protocol):
    """A captioning model (BLIP-2 in the paper)."""

    def caption(self, pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[str]:
        """Return a sentence about each of B RGB pictures."""
        ...


@dataclass(frozen=True)
class Models:
    """One model for every part that Algorithm 1 has."""

    writer: PromptWriter
    generator: ImageGenerator
    detector: Detector
    segmenter: Segmenter
    embedder: ImageEmbedder
    inpainter: Inpainter
    stylizer: Stylizer
    captioner: Captioner


def one_each(model: Model, answers: Answers, count: int) -> Answers:
    """Return `answers` after a check that there are `count`. Raises ModelError naming the model."""
    if len(answers) != count:
        raise ModelError(f"{model.fingerprint} gave {len(answers)} results for {count} items.")
    return answers


def checked_pictures(
    model: Model, pictures: Sequence[Image.Image], sizes: Sequence[tuple[int, int]]
) -> Sequence[Image.Image]:
    """Return `pictures` after a check that they are RGB and of these sizes (W, H). Raises ModelError."""
    for picture, size in zip(one_each(model, pictures, len(sizes)), sizes, strict=True):
        if picture.mode != "RGB" or picture.size != size:
            raise ModelError(
                f"{model.fingerprint} gave a picture of mode {picture.mode} and size {picture.size}, "
                f"but an RGB picture of size {size} was asked for."
            )
    return pictures


def checked_masks(model: Model, masks: Sequence[Mask], size: tuple[int, int]) -> Sequence[Mask]:
    """Return `masks` after a check that they are boolean and of `size` (W, H). Raises ModelError."""
    for mask in masks:
        if mask.dtype != np.bool_ or mask.shape != size[::-1]:
            raise ModelError(
                f"{model.fingerprint} gave a mask of type {mask.dtype} and shape {mask.shape}, "
                f"but a boolean one of shape {size[::-1]} was asked for."
            )
    return masks
