"""Rendered views of assets with one caption each, as renders of Objaverse come.

A folder per asset holds its views (pictures with transparent surroundings) and a text file with its caption;
the caption of `assets/x/` may also be `assets/x.txt`. Section 4: every view has the asset's caption.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from PIL import Image, ImageOps

from jedi_diffusion.data.collection import chosen
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.settings import StoredSource
from jedi_diffusion.data.storage import files_below, read_bytes
from jedi_diffusion.errors import DataError
from jedi_diffusion.files import decode_text, is_mask, natural_order, stem_of
from jedi_diffusion.pictures import ENDINGS, open_layer, open_picture
from jedi_diffusion.sets import ImageSet

PHOTOGRAPHED = 0.5
"""Part of the views that get a photographed background, where there are such."""


class MultiviewAssets:
    """Assets below the folder `place`, each a set of its views.

    Transparent surroundings are filled view by view: with a plain random colour, or with a random part of one
    of the pictures in the folder `backgrounds`. Alpha becomes the masks.
    """

    def __init__(self, place: str, backgrounds: str | None = None) -> None:
        self.source = place
        self._views: dict[str, list[str]] = {}
        self._texts: dict[str, list[str]] = {}
        for file in files_below(place, [*ENDINGS, ".txt"]):
            folder = file.rpartition("/")[0]
            if file.lower().endswith(".txt"):
                for asset in (unicodedata.normalize("NFC", folder), stem_of(file)):
                    self._texts.setdefault(asset, []).append(file)
            elif not is_mask(file):
                self._views.setdefault(folder, []).append(file)
        self._assets = sorted(self._views, key=natural_order)
        self._backgrounds = files_below(backgrounds, ENDINGS) if backgrounds else []
        if not self._assets:
            raise DataError(f"{place} holds no folders of pictures.")
        if backgrounds and not self._backgrounds:
            raise DataError(f"{backgrounds} holds no pictures.")

    def __len__(self) -> int:
        return len(self._assets)

    def name(self, item: int) -> str:
        return self._assets[item]

    def size(self, item: int) -> int:
        return len(self._views[self._assets[item]])

    def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
        asset = self._assets[item]
        caption = self._caption(asset)
        views = [self._views[asset][number] for number in chosen(self.size(item), size, generator)]
        layers = [open_layer(read_bytes(view), view) for view in views]
        masks = tuple(layer.getchannel("A") for layer in layers)
        return ImageSet(
            pictures=tuple(self._filled(layer, generator) for layer in layers),
            captions=(caption,) * size,
            source=self.source,
            masks=None if all(mask.getextrema() == (255, 255) for mask in masks) else masks,
            info={"views": [view.rpartition("/")[2] for view in views]},
        )

    def parts(self) -> Iterator[tuple[str, None]]:
        """Yield the views, captions and backgrounds."""
        assets = (unicodedata.normalize("NFC", asset) for asset in self._assets)
        texts = {file for asset in assets for file in self._texts.get(asset, [])}
        views = (file for files in self._views.values() for file in files)
        yield from ((file, None) for file in (*views, *sorted(texts), *self._backgrounds))

    def _caption(self, asset: str) -> str:
        texts = self._texts.get(unicodedata.normalize("NFC", asset), [])
        if len(texts) != 1:
            raise DataError(f"{asset} has {len(texts)} text files; one with its caption is needed.")
        return decode_text(read_bytes(texts[0]), texts[0]).strip()

    def _filled(self, layer: Image.Image, generator: np.random.Generator) -> Image.Image:
        photographed = generator.random() < PHOTOGRAPHED
        color = tuple(int(value) for value in generator.integers(0, 256, 3))
        which, left, top = generator.random(3)
        if photographed and self._backgrounds:
            file = self._backgrounds[int(which * len(self._backgrounds))]
            photo = open_picture(read_bytes(file), file)
            ground = ImageOps.fit(photo, layer.size, Image.Resampling.LANCZOS, centering=(left, top))
        else:
            ground = Image.new("RGB", layer.size, color)
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground


class MultiviewSection(StoredSource):
    """A folder of rendered views for each asset; `backgrounds` is a folder of photos to put behind them."""

    drawn: ClassVar[str | None] = "their backgrounds are drawn anew each time"
    kind: Literal["multiview"] = "multiview"
    backgrounds: str | None = None

    def open(self, resolution: int, quarantine: Quarantine | None = None) -> MultiviewAssets:
        return MultiviewAssets(self.place, self.backgrounds)
