"""Whether a picture shows the class that is asked for, by the names of ImageNet's 1000 classes.

Letters: B pictures or texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jedi_diffusion.vision.efficientnet import CLASSES
from jedi_diffusion.vision.features import Rows

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.vision.lite import LiteEncoder

NOUNS: dict[str, tuple[int, ...]] = {
    "backpack": (414,),
    "cat": tuple(range(281, 286)),
    "clock": (409, 530, 892),
    "dog": tuple(range(151, 269)),
    "glasses": (836, 837),
    "sneaker": (630, 770),
    "stuffed animal": (850,),
    "sunglasses": (836, 837),
    "teapot": (849,),
    "vase": (883,),
}
"""DreamBench's class words that EfficientNet-Lite finds on its photos. Bowl, can, candle, boot, cartoon and
toys go by other names in ImageNet, or by none: they are not judged."""


class ClassJudge:
    """The probability of the class that a text names first, over EfficientNet-Lite's classifier."""

    image_column = None
    text_column = "class"

    def __init__(self, encoder: LiteEncoder) -> None:
        self.encoder = encoder
        self.name = f"class-{encoder.name}"
        self.fingerprint = f"{encoder.fingerprint} {sorted(NOUNS.items())}"

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        """Return (B, 1000) probabilities."""
        return self.encoder.probabilities(pictures)

    def texts(self, texts: Sequence[str]) -> Rows:
        """Return (B, 1000): 1 at every class of the noun, 0 everywhere for a text without a known one."""
        rows = np.zeros((len(texts), CLASSES), np.float32)
        for row, text in zip(rows, texts, strict=True):
            found = re.search(NOUN, text.lower())
            if found:
                row[list(NOUNS[found.group()])] = 1
        return rows


NOUN = re.compile(r"\b(?:" + "|".join(sorted(NOUNS, key=len, reverse=True)) + r")\b")
