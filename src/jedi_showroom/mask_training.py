"""Training of the network that finds a photo's subject (`jedi_diffusion.vision.subject_mask`).

Composed pictures have exact masks: cut-outs of real-looking things before panoramas and rooms, and toybox
subjects in their scenes. Letters: I pictures; H pixels of a side.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from jedi_diffusion.data.source import SetSource
from jedi_diffusion.devices import autocast
from jedi_diffusion.files import write_file
from jedi_diffusion.randomness import seeded
from jedi_diffusion.trainer.loop import Part, Task, Trainer
from jedi_diffusion.trainer.processes import Processes
from jedi_diffusion.trainer.settings import Every, Schedule, Settings
from jedi_diffusion.vision.lite import load_network
from jedi_diffusion.vision.subject_mask import SIDE, SubjectMaskNetwork, normalized
from jedi_diffusion.weights import half_state
from jedi_toybox.augmentation import blur

CHUNK = 64
WARMUP = 50


@dataclass(frozen=True)
class MaskRecipe:
    """What decides the weights: with `steps` given in place of `minutes`, wholly."""

    pictures: int = 6000
    batch: int = 16
    learning_rate: float = 2e-3
    seed: int = 0
    minutes: float = 20.0
    steps: int | None = None


class MaskPool(NamedTuple):
    """pictures (I, 3, H, H) uint8; masks (I, H, H) bool."""

    pictures: Tensor
    masks: Tensor


def render_pool(source: SetSource, first: int, pictures: int) -> MaskPool:
    """Return one picture of each of the source's sets number `first` and up."""
    parts = []
    for start in tqdm(range(first, first + pictures, CHUNK), desc="rendering", leave=False):
        sets = source.sets(start, min(CHUNK, first + pictures - start), 1, SIDE, "cpu")
        parts.append(MaskPool(sets.pictures[:, 0].cpu(), sets.masks[:, 0].cpu()))
    return MaskPool(*(torch.cat(column) for column in zip(*parts, strict=True)))


class MaskTask(Task):
    """Cross-entropy of every pixel, and one minus the Dice coefficient of every picture."""

    def __init__(self, recipe: MaskRecipe, pool: MaskPool, device: str) -> None:
        self.recipe, self.pool, self.device = recipe, pool, device
        with seeded(recipe.seed):
            self.network = SubjectMaskNetwork().to(device)
        self.network.take_encoder(load_network("lite0"))

    def parts(self, step: int) -> list[Part]:
        rng = np.random.default_rng([self.recipe.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        rows = torch.randint(len(self.pool.pictures), (self.recipe.batch,), generator=generator)
        return [lambda network: self._loss(network, rows, generator)]

    def _loss(self, network: nn.Module, rows: Tensor, generator: torch.Generator) -> Tensor:
        pictures, masks = varied(self.pool.pictures[rows] / 255, self.pool.masks[rows].float(), generator)
        with autocast("auto", self.device):
            logits = network(normalized(pictures.to(self.device)))
        return mask_loss(logits.float(), masks.to(self.device))


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the cross-entropy plus 1 - (2 |p m| + 1) / (|p| + |m| + 1), means over pixels and pictures."""
    chance = logits.sigmoid()
    shared, sizes = (chance * masks).sum((1, 2)), (chance + masks).sum((1, 2))
    dice = (2 * shared + 1) / (sizes + 1)
    return F.binary_cross_entropy_with_logits(logits, masks) + (1 - dice).mean()


def varied(pictures: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return pictures (I, 3, H, H) in 0..1 and masks (I, H, H) as another camera might have taken them.

    Moved, scaled along each axis by its own factor, half of them mirrored; lit otherwise; a third in greys;
    a third less sharp; with noise. Masks are 0 or 1 again after the move.
    """
    count = len(pictures)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    place = torch.zeros(count, 2, 3)
    scale = uniform(0.55, 1.1, count)
    place[:, 0, 0] = scale * uniform(0.8, 1.25, count) * (1 - 2 * (uniform(0, 1, count) < 0.5).float())
    place[:, 1, 1] = scale
    place[:, :, 2] = uniform(-0.3, 0.3, count, 2)
    both = torch.cat([pictures, masks[:, None]], 1)
    grid = F.affine_grid(place, list(both.shape), align_corners=False)
    moved = F.grid_sample(both, grid, padding_mode="reflection", align_corners=False)
    pictures, masks = moved[:, :3].clone(), (moved[:, 3] >= 0.5).float()

    first, second, _ = torch.randperm(count, generator=generator).tensor_split(3)
    pictures[first] = pictures[first].mean(1, keepdim=True).expand(-1, 3, -1, -1)
    pictures[second] = blur(pictures[second], float(uniform(0.5, 2.0, 1)))
    gain, gamma = uniform(0.8, 1.2, count, 3, 1, 1), uniform(0.6, 1.6, count, 1, 1, 1)
    noise = torch.randn(pictures.shape, generator=generator) * uniform(0, 0.06, count, 1, 1, 1)
    return (pictures.clamp(1e-4, 1) ** gamma * gain + noise).clamp(0, 1), masks


def mask_trainer(
    recipe: MaskRecipe, pool: MaskPool, device: str = "cpu", folder: Path | None = None
) -> Trainer:
    """Return the trainer; `folder` keeps log and checkpoints, from which it goes on.

    Raises UsageError where the extra `imagenet` is missing, RecipeError for a folder of another recipe.
    """
    settings = Settings(
        name="subject masks",
        schedule=Schedule(recipe.learning_rate, WARMUP, "linear"),
        steps=recipe.steps or 0,
        minutes=recipe.minutes if recipe.steps is None else None,
        weight_decay=0.01,
        patience=1,
        data=json.dumps(asdict(recipe)),
        save=Every(minutes=1),
        log=Every(steps=20),
    )
    return Trainer(MaskTask(recipe, pool, device), settings, Processes(device), folder)


@torch.no_grad()
def intersection_over_union(network: SubjectMaskNetwork, pool: MaskPool) -> Tensor:
    """Return, for each picture, the pixels that both masks hold over those that either does: (I,) in 0..1.

    Where neither holds any it is 1.
    """
    network.eval()
    found = []
    for pictures, masks in zip(pool.pictures.split(CHUNK), pool.masks.split(CHUNK), strict=True):
        shown = network(normalized(pictures / 255)) >= 0
        either = (shown | masks).sum((1, 2))
        found.append(torch.where(either > 0, (shown & masks).sum((1, 2)) / either.clamp_min(1), 1.0))
    return torch.cat(found)


def save_network(network: nn.Module, path: Path, record: dict[str, object]) -> Path:
    """Write the weights in half precision, with how they were made. Raises OutputError."""
    write_file(path, save(half_state(network), metadata={"record": json.dumps(record)}))
    return path
