"""What the scorer asks of encoders, and the one that needs no network: thumbnails, for copies.

Letters: B pictures or texts in a batch; D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from jedi_diffusion.copies import COPY_SHIFT, COPY_SIDE, thumbnail
from jedi_diffusion.errors import ModelError
from jedi_diffusion.vision.features import Rows


class Encoder(Protocol):
    """Pictures as rows of numbers, each a function of its picture alone. The preprocessing is its own."""

    @property
    def name(self) -> str:
        """Names the encoder in results and in the cache: letters, digits and hyphens."""
        ...

    @property
    def fingerprint(self) -> str:
        """Which weights and preprocessing answer: another string where another answer is possible."""
        ...

    @property
    def image_column(self) -> str | None:
        """What the cosine of two pictures is called in tables ("CLIP-I"); None where it means nothing."""
        ...

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        """Return (B, D) of RGB pictures of any sizes."""
        ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder of pictures and texts. A text score is the dot product of their rows: the cosine, where
    rows have length 1.
    """

    @property
    def text_column(self) -> str:
        """What the text score is called in tables ("CLIP-T")."""
        ...

    def texts(self, texts: Sequence[str]) -> Rows:
        """Return (B, D); a row of zeros for a text that the encoder cannot judge pictures by."""
        ...


class Thumbnails:
    """Whole pictures, small, as uint8 (B, 3 T T): `metrics.copy_distances` compares them."""

    name = "thumbnail"
    fingerprint = f"thumbnail-{COPY_SIDE}-{COPY_SHIFT}-reduced"
    image_column = None

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        return np.stack([thumbnail(each).reshape(-1) for each in pictures])


def checked_rows(encoder: Encoder, rows: Rows, count: int) -> Rows:
    """Return an encoder's answer, if it is one finite row for each of `count` items. Raises ModelError."""
    if rows.ndim != 2 or len(rows) != count or not np.isfinite(rows).all():
        raise ModelError(
            f"The encoder {encoder.name} answered {count} items with an array of shape {rows.shape} "
            "where one row of finite numbers for each is due."
        )
    return rows
