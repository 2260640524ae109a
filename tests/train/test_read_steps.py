"""Reading ahead by other processes: large steps need no more open files than small ones."""

import resource
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from jedi_diffusion.data.encoded_shard import EncodedSet
from jedi_diffusion.data.mixture import Mixture, MixtureSource
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.train.batches import read_steps
from tests.helpers.small_sets import picture

BATCH = 400


@dataclass(frozen=True)
class Pictures:
    """Sets of one picture, also as latents: its number is in them."""

    source: str = "pictures"

    def __len__(self) -> int:
        return 2 * BATCH

    def name(self, item: int) -> str:
        return str(item)

    def size(self, item: int) -> int:
        return 1

    def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
        return ImageSet((picture(item, 16),), (str(item),))

    def parts(self) -> Iterator[tuple[str, str | None]]:
        return iter(())


class Latents(Pictures):
    def latents(self, item: int, size: int, generator: np.random.Generator) -> EncodedSet:
        return EncodedSet(
            *(torch.full(shape, float(item)) for shape in ((1, 4, 2, 2), (1, 7, 3), (7, 3), (1,)))
        )

    def check(self, encoders: str, base: str, resolution: int) -> None:
        pass


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", [Pictures, Latents])
def test_a_large_step_comes_through(kind: type) -> None:
    mixture = Mixture([MixtureSource(kind(), sizes=(1,))], 16)
    assert mixture.encoded == (kind is Latents)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (250, hard))
    try:
        steps = list(read_steps(mixture, 0, 2, BATCH, 0, 1, workers=1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [len(step) for step in steps] == [BATCH, BATCH]
    for place, example in enumerate(example for step in steps for example in step):
        item = mixture.pick(place).item
        if kind is Latents:
            assert float(example.latents.mean()) == item
        else:
            assert (example.place, example.captions) == (place, (str(item),))
