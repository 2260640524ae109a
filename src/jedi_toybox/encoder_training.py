"""Training of the scorer's encoders on subjects of their own (the world's split "scorer").

Letters: S subjects; N pictures of each; I pictures of a batch; G subjects of a batch that share a noun.
"""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jedi_diffusion.devices import autocast
from jedi_diffusion.errors import UsageError
from jedi_diffusion.randomness import seeded
from jedi_diffusion.trainer.loop import Part, Task, Trainer
from jedi_diffusion.trainer.processes import Processes
from jedi_diffusion.trainer.settings import Every, Schedule, Settings
from jedi_toybox import world
from jedi_toybox.augmentation import impostors, vary
from jedi_toybox.bulk import render_many
from jedi_toybox.encoders import FIELDS, NOUNS, SIDE, Encoders, ScorerNetwork

STYLED_SHARE, ATTRIBUTE_SHARE = 0.35, 0.5  # more than in the world itself: each option has to be learned
WEIGHTS = {"attribute": 2.0}  # small things, learned last
TEMPERATURE = 0.1
WARMUP = 20


@dataclass(frozen=True)
class EncoderRecipe:
    """A batch holds `groups` nouns with `subjects_per_noun` subjects of each, and `others` of any noun; two
    pictures of each, and an impostor.
    """

    seed: int = 0
    subjects: int = 3000
    pictures: int = 4
    groups: int = 3
    subjects_per_noun: int = 4
    others: int = 20
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    minutes: float = 4.0
    steps: int | None = None
    """Given, it takes the place of `minutes`: the same steps give the same weights."""


class Pool(NamedTuple):
    """pictures (S, N, 3, SIDE, SIDE) uint8; masks (S, N, SIDE, SIDE) bool; labels: (S, N) a field; nouns:
    S.
    """

    pictures: Tensor
    masks: Tensor
    labels: dict[str, Tensor]
    nouns: list[str]


def render_pool(split: world.Split, first: int, subjects: int, pictures: int, device: str = "cpu") -> Pool:
    """Subjects number `first` and up of the split, in random pictures; the first of each has no style and
    no attribute.
    """
    people = [world.sample_subject(first + number, split) for number in range(subjects)]
    specs = [_training_picture(subject, number) for subject in people for number in range(pictures)]
    out = render_many(specs, SIDE, device)
    shape = (subjects, pictures)
    labels = {
        name: torch.tensor([options.index(getattr(spec, name)) for spec in specs]).view(shape)
        for name, options in FIELDS.items()
    }
    labels["noun"] = torch.tensor([NOUNS.index(_class_of(spec.subject)) for spec in specs]).view(shape)
    pictures_, masks = (each.unflatten(0, shape) for each in out)
    return Pool(pictures_, masks, labels, [_class_of(subject) for subject in people])


class EncoderTask(Task):
    """All losses of the encoders over a pool."""

    def __init__(self, recipe: EncoderRecipe, pool: Pool, device: str) -> None:
        self.recipe, self.pool, self.device = recipe, pool, device
        with seeded(recipe.seed):
            self.network = ScorerNetwork().to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.members = _members(pool.nouns)

    def parts(self, step: int) -> list[Part]:
        rng = np.random.default_rng([self.recipe.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        rows = draw_subjects(self.members, self.recipe, rng)
        return [lambda network: batch_loss(network, self.pool, rows, generator, self.device)]


def encoder_trainer(recipe: EncoderRecipe, device: str = "cpu", folder: Path | None = None) -> Trainer:
    """Return the trainer of the encoders; `folder` keeps log and checkpoints, from which it goes on.

    Raises UsageError for too few subjects, RecipeError for a folder of another recipe.
    """
    if recipe.subjects < recipe.groups * recipe.subjects_per_noun + recipe.others:
        raise UsageError(f"{recipe.subjects} subjects do not fill one batch; take more.")
    pool = render_pool("scorer", recipe.seed * 10_000_000, recipe.subjects, recipe.pictures, device)
    settings = Settings(
        name="encoders",
        schedule=Schedule(recipe.learning_rate, WARMUP, "linear"),
        steps=recipe.steps or 0,
        minutes=recipe.minutes if recipe.steps is None else None,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.98),
        fused=False,
        clip=2.0,
        patience=1,
        data=json.dumps(asdict(recipe)),
        save=Every(minutes=1),
        log=Every(steps=20),
    )
    return Trainer(EncoderTask(recipe, pool, device), settings, Processes(device), folder)


def train(
    recipe: EncoderRecipe, device: str = "cpu", folder: Path | None = None
) -> tuple[ScorerNetwork, dict[str, Any]]:
    """Return the trained network and a record of how it was made.

    Raises as `encoder_trainer` does, and JeDiError for a gradient that is not finite.
    """
    trainer = encoder_trainer(recipe, device, folder)
    loss = trainer.train()
    network = trainer.task.network
    assert isinstance(network, ScorerNetwork)
    last_loss = None if loss is None else round(loss, 4)
    return network, {**asdict(recipe), "steps": trainer.step, "last_loss": last_loss}


def batch_loss(
    network: nn.Module, pool: Pool, rows: Tensor, generator: torch.Generator, device: str
) -> Tensor:
    """All losses over two pictures and an impostor of each of the subjects `rows`; an impostor is nobody."""
    order = torch.rand(len(rows), pool.pictures.shape[1], generator=generator).argsort(1)[:, :2].flatten()
    twice = rows.repeat_interleave(2)
    shown = pool.pictures[twice, order].to(device).float() / 255
    masks = pool.masks[twice, order].to(device).float()
    false = impostors(shown[::2], masks[::2], generator)
    pictures, masks = vary(torch.cat([shown, false]), torch.cat([masks, masks[::2]]), generator)
    count = len(twice)
    with autocast("auto", device):
        reading = network(pictures.contiguous(memory_format=torch.channels_last))
    nobody = -1 - torch.arange(len(rows))
    loss = contrastive_loss(reading.identity, torch.cat([twice, nobody]).to(device))
    cells = F.adaptive_avg_pool2d(masks[:count, None], reading.subject.shape[-1])
    loss = loss + F.binary_cross_entropy_with_logits(reading.subject[:count].float(), cells)
    for name, logits in reading.fields.items():
        error = F.cross_entropy(logits[:count], pool.labels[name][twice, order].to(device))
        loss = loss + WEIGHTS.get(name, 1.0) * error
    return loss


def contrastive_loss(identity: Tensor, owners: Tensor) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, eq. 2) over unit features (I, D); owners (I,): whose
    they are.

    Those who occur once are only told from.
    """
    itself = torch.eye(len(owners), dtype=torch.bool, device=owners.device)
    similar = (identity @ identity.T / TEMPERATURE).masked_fill(itself, -1e4)
    same = (owners[:, None] == owners[None]) & ~itself
    several = same.any(1)
    return -((similar.log_softmax(1) * same).sum(1) / same.sum(1).clamp_min(1))[several].mean()


def draw_subjects(members: dict[str, list[int]], recipe: EncoderRecipe, rng: np.random.Generator) -> Tensor:
    """(S,) rows of the pool: groups that share a noun, so that a subject is told from others of its class,
    and others of any noun, without which a batch would hold too few classes to learn them.
    """
    nouns = [noun for noun, rows in members.items() if len(rows) >= recipe.subjects_per_noun] or list(members)
    weights = np.array([len(members[noun]) for noun in nouns], dtype=float)
    rows: list[int] = []
    for noun in rng.choice(len(nouns), recipe.groups, p=weights / weights.sum()):
        free = [row for row in members[nouns[noun]] if row not in rows]
        rows += rng.permutation(free)[: recipe.subjects_per_noun].tolist()
    rest = [row for group in members.values() for row in group if row not in rows]
    return torch.tensor(rows + rng.permutation(rest)[: recipe.others].tolist())


def _training_picture(subject: world.Subject, number: int) -> world.PictureSpec:
    if number == 0:
        return world.sample_picture(subject, number, style="", attribute="")
    rng = np.random.default_rng([subject.seed, number])
    style = str(rng.choice(world.STYLES)) if rng.random() < STYLED_SHARE else ""
    attribute = str(rng.choice(world.ATTRIBUTES)) if rng.random() < ATTRIBUTE_SHARE else ""
    return world.sample_picture(subject, number, style=style, attribute=attribute)


def _class_of(subject: world.Subject) -> str:
    return "" if subject.noun in world.THING_NOUNS else subject.noun


def _members(nouns: list[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = defaultdict(list)
    for row, noun in enumerate(nouns):
        members[noun].append(row)
    return dict(members)


def judge(encoders: Encoders, subjects: int, device: str = "cpu") -> dict[str, float]:
    """How good the encoders are on held-out subjects: every field's top-1 accuracy, and two AUCs of identity.

    They are the shares of cases in which two pictures of one subject are more alike than a picture of it and
    one of another subject of its noun, or one of an impostor (`impostors`). One of the two is always plain.
    """
    pool = render_pool("held_out", 5_000_000, subjects, 3, device)
    reading = encoders.read(pool.pictures.flatten(0, 1))
    found = {
        name: float((logits.argmax(1) == pool.labels[name].flatten()).float().mean())
        for name, logits in reading.fields.items()
    }
    model, mask = pool.pictures[:, 1].float() / 255, pool.masks[:, 1].float()
    false = impostors(model, mask, torch.Generator().manual_seed(0))
    impostor = encoders.read((false * 255).round().to(torch.uint8)).identity
    identity = reading.identity.unflatten(0, (subjects, 3))
    same = torch.einsum("snd,sd->sn", identity[:, 1:], identity[:, 0]).flatten()
    feigned = (impostor * identity[:, 0]).sum(1)
    nouns = pool.labels["noun"][:, 0]
    rival = (nouns[:, None] == nouns[None]) & ~torch.eye(subjects, dtype=torch.bool)
    other = torch.einsum("snd,td->nst", identity[:, 1:], identity[:, 0])[:, rival].flatten()
    found |= {"identity_auc": auc(same, other), "impostor_auc": auc(same, feigned)}
    return {name: round(value, 4) for name, value in found.items()}


def auc(positive: Tensor, negative: Tensor) -> float:
    """Return the share of (positive, negative) pairs in the right order, ties counting half."""
    ranked = negative.sort().values
    below = sum(torch.searchsorted(ranked, positive, right=right) for right in (False, True))
    assert isinstance(below, Tensor)
    return float(below.double().mean() / (2 * len(negative)))
