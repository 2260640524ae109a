"""From places of a mixture to what the network is called with.

Letters: N pictures in a set; I pictures of a micro-batch; H pixels of a side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from jedi_diffusion.conditioning import sizes_of_pictures
from jedi_diffusion.data.mixture import Mixture, places
from jedi_diffusion.diffusion.denoiser import Coupling
from jedi_diffusion.diffusion.loss import JointLoss, NoiseDraw
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.train.plan import SetPlan


@dataclass(frozen=True)
class Example:
    """A set as it is read: pixels (N, 3, H, H) uint8, a caption each."""

    place: int
    pixels: Tensor
    captions: tuple[str, ...]


class Examples(Dataset[Example]):
    """The mixture's sets by place, as tensors that travel cheaply between processes."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def __getitem__(self, place: int) -> Example:
        given = self.mixture[place]
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in given.pictures]))
        return Example(place, pixels.permute(0, 3, 1, 2).contiguous(), given.captions)


class StepPlaces(Sampler[list[int]]):
    """A process's places of every step from `first` on: where a run resumes, nothing is read twice."""

    def __init__(self, first: int, steps: int, batch: int, rank: int, ranks: int) -> None:
        self.steps = range(first, steps)
        self.layout = (batch, rank, ranks)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield list(places(step, *self.layout))


def read_steps(
    mixture: Mixture, first: int, steps: int, batch: int, rank: int, ranks: int, workers: int
) -> DataLoader[list[Example]]:
    """The process's sets of each step from `first` to `steps` - 1, read ahead by `workers` processes."""
    sampler = StepPlaces(first, steps, batch, rank, ranks)
    reader: Any = Examples(mixture)  # DataLoader's stubs take it for a set of batches
    return DataLoader(reader, batch_sampler=sampler, collate_fn=list, num_workers=workers)


@dataclass(frozen=True)
class MicroBatch:
    """What one forward of the network works on; `sets` say where its pictures come from."""

    batch: SetBatch
    draw: NoiseDraw
    coupling: Coupling
    sets: tuple[SetPlan, ...]


class Encoder:
    """Pictures and captions to conditions, by the frozen parts of a pipeline.

    Latents are the mode of the autoencoder's posterior, so that they can be computed beforehand.
    """

    def __init__(self, pipeline: JeDiPipeline, loss: JointLoss) -> None:
        self.pipeline, self.loss = pipeline, loss

    @torch.no_grad()
    def __call__(
        self, sets: Sequence[SetPlan], examples: Sequence[Example], coupling: Coupling
    ) -> MicroBatch:
        """One micro-batch of the sets, with noise drawn for each set by itself."""
        pixels = torch.cat([example.pixels for example in examples]).float() / 127.5 - 1
        captions = [
            "" if silent else caption
            for each, example in zip(sets, examples, strict=True)
            for caption, silent in zip(example.captions, each.silent, strict=True)
        ]
        latents = self.pipeline.encode_pictures(pixels)
        text = self.pipeline.encode_captions(captions)
        flags = torch.tensor([flag for each in sets for flag in each.is_reference], device=latents.device)
        batch = SetBatch(
            latents=latents,
            mask=(~flags).float().view(-1, 1, 1, 1),
            text=text.embeddings,
            set_sizes=tuple(map(len, sets)),
            pooled_text=text.pooled,
            time_ids=None if text.pooled is None else _sizes(pixels).to(latents.device),
        )
        return MicroBatch(batch, self._noise(batch, sets, coupling), coupling, tuple(sets))

    def _noise(self, batch: SetBatch, sets: Sequence[SetPlan], coupling: Coupling) -> NoiseDraw:
        draws, first = [], 0
        for each in sets:
            alone = batch.select(list(range(first, first + len(each))), (len(each),))
            draws.append(self.loss.draw(alone, torch.Generator().manual_seed(each.noise_seed), coupling))
            first += len(each)
        return NoiseDraw.concatenate(draws)


def _sizes(pixels: Tensor) -> Tensor:
    return sizes_of_pictures(len(pixels), *pixels.shape[2:])
