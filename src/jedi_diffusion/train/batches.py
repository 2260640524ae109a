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

from jedi_diffusion.data.encoded_shard import EncodedSet
from jedi_diffusion.data.mixture import Mixture, places
from jedi_diffusion.joint.loss import JointLoss, NoiseDraw
from jedi_diffusion.options import Coupling
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.sets import Conditions, SetBatch, concatenate_rows, split_rows
from jedi_diffusion.train.plan import SetPlan


@dataclass(frozen=True)
class Example:
    """A set as it is read: pixels (N, 3, H, H) uint8, a caption each."""

    place: int
    pixels: Tensor
    captions: tuple[str, ...]


AnyExample = Example | EncodedSet


class Examples(Dataset[AnyExample]):
    """The mixture's sets by place, as tensors that travel cheaply between processes.

    Those of encoded sources are read as latents and text embeddings.
    """

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def __getitem__(self, place: int) -> AnyExample:
        given = self.mixture.training_set(place)
        if isinstance(given, EncodedSet):
            return given
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
) -> DataLoader[list[AnyExample]]:
    """Return the process's sets of each step from `first` to `steps` - 1, read ahead by `workers`
    processes.
    """
    sampler = StepPlaces(first, steps, batch, rank, ranks)
    reader: Any = Examples(mixture)  # DataLoader's stubs take it for a set of batches
    return DataLoader(
        reader,
        batch_sampler=sampler,
        collate_fn=list,
        num_workers=workers,
        worker_init_fn=_share_by_name if workers else None,
    )


def _share_by_name(worker: int) -> None:
    """Tensors of a step go to the training process by name: a file descriptor each would be too many."""
    torch.multiprocessing.set_sharing_strategy("file_system")


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
        self._blanks: dict[tuple[int, int], Tensor | None] = {}

    @torch.no_grad()
    def __call__(
        self, sets: Sequence[SetPlan], examples: Sequence[AnyExample], coupling: Coupling
    ) -> MicroBatch:
        """Return one micro-batch of the sets, with noise drawn for each set by itself."""
        read = [(each, example) for each, example in zip(sets, examples, strict=True)]
        online = iter(self._encode([(each, x) for each, x in read if isinstance(x, Example)]))
        parts = [self._stored(each, x) if isinstance(x, EncodedSet) else next(online) for each, x in read]
        latents = torch.cat([latents for latents, _ in parts])
        factor = self.pipeline.vae_scale_factor
        height, width = (factor * side for side in latents.shape[2:])
        sizes = self.pipeline.backbone.size_conditions(len(latents), height, width, latents.device)
        visibility = tuple(seen for each in sets for seen in each.visibility)
        flags = torch.tensor([flag for each in sets for flag in each.is_reference], device=latents.device)
        batch = SetBatch(
            latents=latents,
            mask=(~flags).float().view(-1, 1, 1, 1),
            conditions=concatenate_rows([text for _, text in parts]) | sizes,
            set_sizes=tuple(map(len, sets)),
            blank=self._blank(latents),
            visibility=visibility if any(visibility) else None,
        )
        return MicroBatch(batch, self._noise(batch, sets, coupling), coupling, tuple(sets))

    def _encode(self, read: Sequence[tuple[SetPlan, Example]]) -> list[tuple[Tensor, Conditions]]:
        """Latents and captions of each set, by the frozen networks."""
        if not read:
            return []
        pixels = torch.cat([example.pixels for _, example in read]).float() / 127.5 - 1
        captions = [
            "" if silent else caption
            for each, example in read
            for caption, silent in zip(example.captions, each.silent, strict=True)
        ]
        sizes = [len(each) for each, _ in read]
        latents = self.pipeline.encode_pictures(pixels).split(sizes)
        text = self.pipeline.encode_captions(captions)
        return list(zip(latents, split_rows(text, sizes), strict=True))

    def _stored(self, plan: SetPlan, given: EncodedSet) -> tuple[Tensor, Conditions]:
        """Return the same of a set that was encoded before, in the types that the networks would give."""
        device, dtype = self.pipeline.network.device, self.pipeline.text_encoder.dtype
        silent = torch.tensor(plan.silent)
        text = {"text": torch.where(silent[:, None, None], given.null_text, given.text).to(device, dtype)}
        if given.pooled is not None and given.null_pooled is not None:
            pooled = torch.where(silent[:, None], given.null_pooled, given.pooled)
            text["pooled_text"] = pooled.to(device, dtype)
        if self.pipeline.backbone.tells_captioned:
            text["captioned"] = (given.captioned & ~silent).to(device)
        return given.latents.to(device, torch.float32), text

    def _blank(self, latents: Tensor) -> Tensor | None:
        """Return what targets show in place of reference latents (`SetBatch.blank`); the same at
        every step.
        """
        factor = self.pipeline.vae_scale_factor
        size = latents.shape[2] * factor, latents.shape[3] * factor
        if size not in self._blanks:
            self._blanks[size] = self.pipeline.blank_latents(*size)
        blank = self._blanks[size]
        return None if blank is None else blank.to(latents).expand_as(latents)

    def _noise(self, batch: SetBatch, sets: Sequence[SetPlan], coupling: Coupling) -> NoiseDraw:
        draws, first = [], 0
        for each in sets:
            alone = batch.select(list(range(first, first + len(each))), (len(each),))
            draws.append(self.loss.draw(alone, torch.Generator().manual_seed(each.noise_seed), coupling))
            first += len(each)
        return NoiseDraw.concatenate(draws)
