"""The toybox as a collection of sets by number, one source of a training mixture among others."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import PositiveInt

from jedi_diffusion.data.collection import chosen
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.settings import SourceSettings
from jedi_diffusion.sets import ImageSet
from jedi_toybox import world


class ToyboxSets:
    """`subjects` training subjects, each in up to `pictures` pictures of `resolution` pixels a side.

    Pictures are rendered when they are read, some ten a second on a core.
    """

    def __init__(self, resolution: int, subjects: int, pictures: int) -> None:
        self.source = "toybox"
        self.resolution, self.subjects, self.pictures = resolution, subjects, pictures

    def __len__(self) -> int:
        return self.subjects

    def name(self, item: int) -> str:
        return f"subject {item}"

    def size(self, item: int) -> int:
        return self.pictures

    def parts(self) -> Iterator[tuple[str, str | None]]:
        """Yield nothing: the pictures are a function of the recipe."""
        return iter(())

    def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
        subject = world.sample_subject(item)
        specs = [world.sample_picture(subject, n) for n in chosen(self.pictures, size, generator)]
        out = world.render(specs, self.resolution)
        return ImageSet(
            pictures=tuple(Image.fromarray(each) for each in out.pictures.permute(0, 2, 3, 1).numpy()),
            captions=tuple(spec.caption for spec in specs),
            source=self.source,
            subject=subject.phrase,
            masks=tuple(Image.fromarray(each) for each in (out.masks.numpy() * np.uint8(255))),
        )


class ToyboxSection(SourceSettings):
    """The procedural world as a source: `subjects` of `pictures` each, rendered when they are read."""

    kind: Literal["toybox"]
    subjects: PositiveInt = 10_000
    pictures: PositiveInt = 8

    def open(self, resolution: int, quarantine: Quarantine | None = None) -> ToyboxSets:
        return ToyboxSets(resolution, self.subjects, self.pictures)
