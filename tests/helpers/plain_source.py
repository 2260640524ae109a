"""The smallest source of sets: pictures of one colour."""

import torch
from PIL import Image

from jedi_diffusion.data.source import RenderedSets
from jedi_diffusion.sets import ImageSet

NUMBERS = ("zero", "one", "two", "three")


class PlainSource:
    """Picture n of set s is grey s; its caption ends in the number n, its left half is the subject."""

    words: tuple[str, ...] = ("a", "cube", *NUMBERS)

    def sets(self, first: int, count: int, pictures: int, size: int, device: str) -> RenderedSets:
        shade = torch.arange(first, first + count, dtype=torch.uint8).view(-1, 1, 1, 1, 1)
        masks = torch.zeros(count, pictures, size, size, dtype=torch.bool)
        masks[..., : size // 2] = True
        return RenderedSets(
            pictures=shade.expand(count, pictures, 3, size, size),
            masks=masks,
            captions=[[f"a cube {number}" for number in NUMBERS[:pictures]]] * count,
            names=["a cube"] * count,
        )


def image_set(shade: int, size: int) -> ImageSet:
    """Two plain pictures."""
    picture = Image.new("RGB", (size, size), (shade, shade, shade))
    captions = ("a cube zero", "a cube one")
    return ImageSet((picture, picture), captions, info={"name": "a cube"})
