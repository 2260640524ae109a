"""Models for tests of the synthesis: exact and small. Subjects are discs, told apart by their color.

A collage has three discs of one subject, a disc of another, one that is cut off and a tiny one.
"""

import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jedi_diffusion.errors import ModelError
from jedi_diffusion.synthesis.protocols import Failure, Models
from jedi_diffusion.vision.detection import Box, Detection, Mask

BACKGROUND = (250, 250, 250)
RED, BLUE = (200, 40, 40), (40, 60, 200)
# Center, radius as parts of a side; the last number of each color makes every disc's color its own.
DISCS = (
    (0.25, 0.25, 0.12, (*RED[:2], 41)),
    (0.70, 0.25, 0.14, (*RED[:2], 42)),
    (0.25, 0.70, 0.10, (*RED[:2], 43)),
    (0.70, 0.70, 0.12, (*BLUE[:2], 201)),
    (0.98, 0.50, 0.10, (*RED[:2], 44)),
    (0.48, 0.48, 0.02, (*RED[:2], 45)),
)


def disc_mask(size: int, x: float, y: float, radius: float) -> Mask:
    rows, columns = np.mgrid[:size, :size] + 0.5
    return (columns - x * size) ** 2 + (rows - y * size) ** 2 < (radius * size) ** 2


class Writer:
    fingerprint = "test-writer"

    def __init__(self, answers: Sequence[str | Failure] | None = None) -> None:
        self.answers = answers
        self.requests: list[str] = []

    def write(self, requests: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        self.requests += requests
        if self.answers is not None:
            return list(self.answers)
        return [self._answer(request, seed) for request, seed in zip(requests, seeds, strict=True)]

    def _answer(self, request: str, seed: int) -> str:
        count = int(re.search(r"Invent (\d+)", request)[1])
        name = re.search(r'"([^"]+)"', request)[1]
        return json.dumps({"prompts": [f"{name} number {number} of {seed}" for number in range(count)]})


class Generator:
    fingerprint = "test-generator"

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int]
    ) -> list[Image.Image]:
        return [self._collage(size[0]) for _ in prompts]

    def _collage(self, size: int) -> Image.Image:
        pixels = np.full((size, size, 3), BACKGROUND, dtype=np.uint8)
        for x, y, radius, color in DISCS:
            pixels[disc_mask(size, x, y, radius)] = color
        return Image.fromarray(pixels)


def masks_by_color(picture: Image.Image) -> list[Mask]:
    """A mask of every color but the background's, by the place of its first pixel."""
    pixels = np.asarray(picture).astype(np.int64) @ (1 << 16, 1 << 8, 1)
    colors, first = np.unique(pixels, return_index=True)
    empty = int(np.dot(BACKGROUND, (1 << 16, 1 << 8, 1)))
    return [pixels == color for color in colors[np.argsort(first)] if color != empty]


class Detector:
    fingerprint = "test-detector"

    def detect(self, pictures: Sequence[Image.Image], names: Sequence[str]) -> list[list[Detection]]:
        return [[self._detection(mask) for mask in masks_by_color(picture)] for picture in pictures]

    def _detection(self, mask: Mask) -> Detection:
        rows, columns = np.nonzero(mask)
        return Detection(Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), 0.9)


class Segmenter:
    fingerprint = "test-segmenter"

    def segment(self, pictures: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]) -> list[list[Mask]]:
        return [
            [self._mask(picture, box) for box in each] for picture, each in zip(pictures, boxes, strict=True)
        ]

    def _mask(self, picture: Image.Image, box: Box) -> Mask:
        pixels = np.asarray(picture)
        color = pixels[int(box.top + box.bottom) // 2, int(box.left + box.right) // 2]
        return (pixels == color).all(axis=2)


class Embedder:
    """The mean color of what is not white."""

    fingerprint = "test-embedder"

    def embed(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        pixels = [np.asarray(picture).reshape(-1, 3) for picture in pictures]
        return np.stack([each[(each < 255).any(axis=1)].mean(axis=0) for each in pixels]).astype(np.float32)


class Inpainter:
    """Fills with a color that depends on the seed, and shifts what it was to keep, as autoencoders do."""

    fingerprint = "test-inpainter"

    def inpaint(
        self,
        pictures: Sequence[Image.Image],
        masks: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        made = []
        for picture, mask, seed in zip(pictures, masks, seeds, strict=True):
            shifted = picture.point(lambda value: min(value + 3, 255))
            shifted.paste((seed % 256, seed // 256 % 256, 100), mask=mask)
            made.append(shifted)
        return made


class Stylizer:
    fingerprint = "test-stylizer"

    def stylize(
        self, pictures: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        return [picture.point(lambda value: 255 - value) for picture in pictures]


class Captioner:
    fingerprint = "test-captioner"

    def caption(self, pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[str]:
        return [
            f"a disc, {picture.width} pixels, {seed}" for picture, seed in zip(pictures, seeds, strict=True)
        ]


def make_models(**others: object) -> Models:
    """One of each, some replaced."""
    parts = {
        "writer": Writer(),
        "generator": Generator(),
        "detector": Detector(),
        "segmenter": Segmenter(),
        "embedder": Embedder(),
        "inpainter": Inpainter(),
        "stylizer": Stylizer(),
        "captioner": Captioner(),
    }
    return Models(**{**parts, **others})


def build(*given: object) -> Models:
    """As a run's factory, for processes of its own; so are those that follow."""
    return make_models()


def refuse(*given: object) -> Models:
    raise ModelError("no such weights")


def die(*given: object) -> Models:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it was killed")


def deadly(mark: str, *given: object) -> Models:
    """The inpainter kills its process once, and leaves the file `mark`."""
    return make_models(inpainter=Deadly(mark))


class Deadly(Inpainter):
    def __init__(self, mark: str) -> None:
        self.mark = Path(mark)

    def inpaint(self, *given: object) -> list[Image.Image]:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().inpaint(*given)


class Failing(Captioner):
    """Fails on the pictures whose seeds it is told, alone or in a batch."""

    def __init__(self, bad: Sequence[int] | None = None) -> None:
        self.bad = bad
        self.asked: list[int] = []

    def caption(self, pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[str]:
        self.asked += seeds
        if self.bad is None or set(seeds) & set(self.bad):
            raise RuntimeError("CUDA error:\nan illegal memory access")
        return super().caption(pictures, seeds)
