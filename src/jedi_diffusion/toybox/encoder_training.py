"""Training of the scorer's encoders on subjects of their own (the world's split "scorer").

Letters: S subjects; N pictures of each; I pictures of a batch; G subjects of a batch that share a noun.
"""

import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from jedi_diffusion.errors import UsageError
from jedi_diffusion.toybox import world
from jedi_diffusion.toybox.bulk import render_many
from jedi_diffusion.toybox.encoders import FIELDS, NOUNS, SIDE, Encoders, ScorerNetwork

STYLED_SHARE, ATTRIBUTE_SHARE = 0.35, 0.4  # more than in the world itself: each option has to be learned
WEIGHTS = {"attribute": 2.0}  # small things, learned last
TEMPERATURE = 0.1
WARMUP, PLANNING_STEPS = 20, 20


@dataclass(frozen=True)
class EncoderRecipe:
    """`groups` nouns a batch, `subjects_per_noun` subjects of each, every picture of each subject."""

    seed: int = 0
    subjects: int = 2000
    pictures: int = 4
    groups: int = 4
    subjects_per_noun: int = 8
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


def train(recipe: EncoderRecipe, device: str = "cpu") -> tuple[ScorerNetwork, dict[str, Any]]:
    """The trained network and a record of how it was made."""
    if recipe.subjects < recipe.groups * recipe.subjects_per_noun:
        raise UsageError(f"{recipe.subjects} subjects do not fill one batch; take more.")
    pool = render_pool("scorer", recipe.seed * 10_000_000, recipe.subjects, recipe.pictures, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = ScorerNetwork().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=0.0, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    members = _members(pool.nouns)
    started, step, steps = time.monotonic(), 0, recipe.steps
    bar = tqdm(total=steps, desc="training", unit="step")
    while steps is None or step < steps:
        rng = np.random.default_rng([recipe.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        rows = draw_subjects(members, recipe, rng)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, steps)
        loss = batch_loss(network, pool, rows, generator, device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        step += 1
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if steps is None and step == PLANNING_STEPS:
            spent = time.monotonic() - started
            steps = bar.total = max(2 * PLANNING_STEPS, int(60 * recipe.minutes / spent * step))
    bar.close()
    return network, {**asdict(recipe), "steps": steps, "last_loss": round(loss.item(), 4)}


def _schedule(step: int, steps: int | None) -> float:
    """Linear warm-up, then linearly down to zero; flat until the number of steps is known."""
    start = min(1.0, (step + 1) / WARMUP)
    return start if steps is None else start * max(0.0, 1 - max(0, step - WARMUP) / max(1, steps - WARMUP))


def batch_loss(
    network: ScorerNetwork, pool: Pool, rows: Tensor, generator: torch.Generator, device: str
) -> Tensor:
    """All losses over every picture of the subjects `rows`."""
    pictures, masks = augment(
        pool.pictures[rows].flatten(0, 1).to(device).float() / 255,
        pool.masks[rows].flatten(0, 1).to(device).float(),
        generator,
    )
    owners = rows.repeat_interleave(pool.pictures.shape[1]).to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        reading = network(pictures.contiguous(memory_format=torch.channels_last))
    cells = F.adaptive_avg_pool2d(masks[:, None], reading.subject.shape[-1])
    loss = contrastive_loss(reading.identity, owners)
    loss = loss + F.binary_cross_entropy_with_logits(reading.subject.float(), cells)
    for name, logits in reading.fields.items():
        error = F.cross_entropy(logits, pool.labels[name][rows].flatten().to(device))
        loss = loss + WEIGHTS.get(name, 1.0) * error
    return loss


def contrastive_loss(identity: Tensor, owners: Tensor) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, eq. 2) over unit features (I, D); owners (I,): whose
    they are.

    Every subject must occur at least twice.
    """
    itself = torch.eye(len(owners), dtype=torch.bool, device=owners.device)
    similar = (identity @ identity.T / TEMPERATURE).masked_fill(itself, -1e4)
    same = (owners[:, None] == owners[None]) & ~itself
    return -((similar.log_softmax(1) * same).sum(1) / same.sum(1)).mean()


def draw_subjects(members: dict[str, list[int]], recipe: EncoderRecipe, rng: np.random.Generator) -> Tensor:
    """(S,) rows of the pool, in groups that share a noun, so that a subject is told from others of its
    class.
    """
    nouns = [noun for noun, rows in members.items() if len(rows) >= recipe.subjects_per_noun] or list(members)
    weights = np.array([len(members[noun]) for noun in nouns], dtype=float)
    rows: list[int] = []
    for noun in rng.choice(len(nouns), recipe.groups, p=weights / weights.sum()):
        free = [row for row in members[nouns[noun]] if row not in rows]
        rows += rng.permutation(free)[: recipe.subjects_per_noun].tolist()
    return torch.tensor(rows)


def augment(pictures: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shifted, scaled, mirrored, recoloured a little, noisy, and often blurred: generated pictures are less
    sharp than rendered ones, and that must not count. pictures (I, 3, H, H) in 0..1, masks (I, H, H).
    """
    count, device = len(pictures), pictures.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(device)

    scale = 0.8 + 0.3 * uniform(count)
    turn = torch.zeros(count, 2, 3, device=device)
    turn[:, 0, 0] = scale * torch.where(uniform(count) < 0.5, -1.0, 1.0)
    turn[:, 1, 1] = scale
    turn[:, :, 2] = 0.3 * (uniform(count, 2) - 0.5)
    both = torch.cat([pictures, masks[:, None]], 1)
    grid = F.affine_grid(turn, list(both.shape), align_corners=False)
    moved = F.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    pictures, masks = moved[:, :3], moved[:, 3]

    order = torch.randperm(count, generator=generator).to(device)
    quarter = count // 4
    side = int(24 + 24 * torch.rand((), generator=generator))
    coarse, soft, both_ways = (order[n * quarter : (n + 1) * quarter] for n in range(3))
    pictures = pictures.clone()
    for rows in (coarse, both_ways):
        small = F.interpolate(pictures[rows], (side, side), mode="bilinear", antialias=True)
        pictures[rows] = F.interpolate(small, pictures.shape[-2:], mode="bicubic")
    for rows in (soft, both_ways):
        pictures[rows] = blur(pictures[rows], 0.4 + 0.8 * float(torch.rand((), generator=generator)))
    gain = 1 + 0.1 * (uniform(count, 3, 1, 1) - 0.5)
    noise = torch.randn(pictures.shape, generator=generator).to(device) * 0.04 * uniform(count, 1, 1, 1)
    return (pictures * gain + noise).clamp(0, 1), masks


def blur(pictures: Tensor, deviation: float) -> Tensor:
    """Gaussian blur by `deviation` pixels."""
    reach = max(1, round(3 * deviation))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pictures.device) / deviation) ** 2)
    line = (line / line.sum()).expand(pictures.shape[1], 1, 1, -1)
    padded = F.pad(pictures, (reach,) * 4, mode="reflect")
    across = F.conv2d(padded, line, groups=pictures.shape[1])
    return F.conv2d(across, line.transpose(2, 3), groups=pictures.shape[1])


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
    """How good the encoders are on held-out subjects: top-1 accuracy of every field, and identity's AUC,
    the share of cases in which two pictures of one subject are more alike than two of different subjects of
    one noun (one of the two pictures has no style and no attribute).
    """
    pool = render_pool("held_out", 5_000_000, subjects, 3, device)
    reading = encoders.read(pool.pictures.flatten(0, 1))
    found = {
        name: float((logits.argmax(1) == pool.labels[name].flatten()).float().mean())
        for name, logits in reading.fields.items()
    }
    identity = reading.identity.unflatten(0, (subjects, 3))
    similar = torch.einsum("snd,td->snt", identity[:, 1:], identity[:, 0])
    nouns = pool.labels["noun"][:, 0]
    own = torch.eye(subjects, dtype=torch.bool)
    rival = (nouns[:, None] == nouns[None]) & ~own
    same = similar.permute(1, 0, 2)[:, own].flatten()
    other = similar.permute(1, 0, 2)[:, rival].flatten()
    found["identity_auc"] = auc(same, other)
    return {name: round(value, 4) for name, value in found.items()}


def auc(positive: Tensor, negative: Tensor) -> float:
    """The share of (positive, negative) pairs in the right order, ties counting half."""
    ranked = negative.sort().values
    below = sum(torch.searchsorted(ranked, positive, right=right) for right in (False, True))
    assert isinstance(below, Tensor)
    return float(below.double().mean() / (2 * len(negative)))
