"""The toybox's scenes as pictures with a place, to train and to test a place classifier on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from PIL import Image

from jedi_toybox import world
from jedi_toybox.augmentation import vary
from jedi_toybox.bulk import render_many
from jedi_toybox.score import to_picture

CHUNK = 64  # pictures that are varied at once


class PlacePictures(NamedTuple):
    """Pictures and the numbers of their scenes in `world.SCENES`."""

    pictures: list[Image.Image]
    labels: list[int]


def place_pictures(
    split: world.Split, per_scene: int, size: int, seed: int = 0, device: str = "cpu", varied: bool = False
) -> PlacePictures:
    """Render `per_scene` plain pictures of each scene, every one with another subject of the split.

    varied: every second picture is changed a little (`augmentation.vary`), as generated pictures differ from
    rendered ones.
    """
    labels = [scene for _ in range(per_scene) for scene in range(len(world.SCENES))]
    specs = [
        world.sample_picture(
            world.sample_subject((seed << 40) + number, split), 0, world.SCENES[label], style="", attribute=""
        )
        for number, label in enumerate(labels)
    ]
    drawn = render_many(specs, size, device, "places")
    pictures = drawn.pictures
    if varied:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(pictures), generator=generator)[: len(pictures) // 2]
        for places in chosen.split(CHUNK):
            changed, _ = vary(pictures[places].float() / 255, drawn.masks[places].float(), generator)
            pictures[places] = (changed * 255).round().to(torch.uint8)
    return PlacePictures([to_picture(each) for each in pictures], labels)
