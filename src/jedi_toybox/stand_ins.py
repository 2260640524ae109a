"""The toybox in the place of pretrained single-image models, for a synthesis that needs no download.

Each class has the methods of a protocol of `jedi_diffusion.synthesis.protocols`, which says what they give.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from jedi_diffusion import __version__
from jedi_diffusion.errors import ModelError, UsageError
from jedi_toybox import collages
from jedi_toybox.encoders import BUNDLED, FIELDS, FILE, Encoders, Reading, load_encoders

MARGIN = 0.62
"""Part of a side that an instance fills before it is encoded, as subjects do in the encoder's training."""
SUBJECT = "a toy"
SURE = 0.5
"""Probability from which on a caption speaks of a style or an attribute."""


def _check_rays(rays: int) -> int:
    if not 1 <= rays <= 8:
        raise UsageError(f"A pixel of the toybox has 1 to 8 rays a side, not {rays}.")
    return rays


class ToyboxGenerator:
    """Draws collages (`collages.draw_collage`), and says in their `info` whom they show where."""

    def __init__(self, rays: int = 2) -> None:
        self.rays = _check_rays(rays)
        self.fingerprint = f"toybox collages, {rays} rays, {__version__}"

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int]
    ) -> list[Image.Image]:
        """Square pictures. Raises ModelError for a prompt that names nothing the toybox knows."""
        if size[0] != size[1]:
            raise ModelError(f"The toybox draws square collages, not {size[0]}x{size[1]}.")
        return [self._draw(prompt, seed, size[0]) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _draw(self, prompt: str, seed: int, size: int) -> Image.Image:
        drawn = collages.draw_collage(prompt, seed, size, self.rays)
        panels: list[dict[str, Any]] = [
            {
                "subject": f"{each.subject.noun} {each.subject.seed}",
                "box": list(each.box),
                "whole": each.whole,
            }
            for each in drawn.panels
        ]
        drawn.picture.info["truth"] = {"panels": panels}
        return drawn.picture


class ToyboxInpainter:
    """Puts the scene that a prompt names behind what is kept."""

    def __init__(self, rays: int = 2) -> None:
        self.rays = _check_rays(rays)
        self.fingerprint = f"toybox scenes, {rays} rays, {__version__}"

    def inpaint(
        self,
        pictures: Sequence[Image.Image],
        masks: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """Square pictures, as large as the first."""
        if not pictures:
            return []
        names = [collages.find_scene(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        behind = collages.draw_scenes(names, seeds, pictures[0].width, self.rays)
        return [
            Image.composite(Image.fromarray(scene), picture, mask)
            for scene, picture, mask in zip(behind, pictures, masks, strict=True)
        ]


class _Reader:
    """The bundled encoders, one picture at a time: in a batch, rounding depends on the other pictures."""

    def __init__(self) -> None:
        from jedi_diffusion.data.shards import checksum

        self.fingerprint = f"toybox encoder {checksum((BUNDLED / FILE).read_bytes())[:12]}"

    @cached_property
    def encoders(self) -> Encoders:
        return load_encoders()

    def read(self, picture: Image.Image) -> Reading:
        return self.encoders.read(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])


class ToyboxEmbedder(_Reader):
    """The identity that the toybox's own scorer reads."""

    def embed(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(B, 64), of length 1."""
        rows = [self.read(_with_margin(picture)).identity[0].numpy() for picture in pictures]
        return np.stack(rows).astype(np.float32)


def _with_margin(picture: Image.Image) -> Image.Image:
    side = max(1, round(max(picture.size) / MARGIN))
    whole = Image.new("RGB", (side, side), "white")
    whole.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return whole


class ToyboxCaptioner(_Reader):
    """Says in the toybox's words what the scorer's encoder sees: the scene, and style and attribute if sure.

    The encoder was trained to tell individuals, not classes, so whatever is shown is a toy.
    """

    def caption(self, pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[str]:
        """For instance "a mosaic of a toy in the snow"."""
        return [self._describe(self.read(picture).fields) for picture in pictures]

    def _describe(self, fields: dict[str, Tensor]) -> str:
        style, attribute = (self._if_sure(name, fields) for name in ("style", "attribute"))
        scene = FIELDS["scene"][int(fields["scene"][0].argmax())]
        return " ".join(filter(None, (style, SUBJECT, attribute, scene)))

    def _if_sure(self, name: str, fields: dict[str, Tensor]) -> str:
        likely = fields[name][0].softmax(0)
        best = int(likely.argmax())
        return FIELDS[name][best] if float(likely[best]) >= SURE else ""
