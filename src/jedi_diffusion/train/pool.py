"""Pictures rendered, and latents encoded, once before a stage; batches are then drawn from memory.

Letters: S subjects; N pictures of each; H pixels of a side; C, h latents; K text tokens; I pictures in a
batch.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from jedi_diffusion.data.source import RenderedSets, SetSource
from jedi_diffusion.devices import Precision, autocast
from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.networks.text import tokenize
from jedi_diffusion.train.config import JointStage, Stage

CHUNK = 64  # sets rendered at a time


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 pictures to float in [-1, 1], the autoencoder's range."""
    return pictures.float() / 127.5 - 1


def rendered_chunks(source: SetSource, first: int, stage: Stage, device: str) -> Iterator[RenderedSets]:
    """Yield the stage's sets, numbers `first` and up, CHUNK at a time, with progress."""
    starts = range(first, first + stage.subjects, CHUNK)
    for start in tqdm(starts, desc=f"{stage.name}: rendering", unit=f" x {CHUNK} sets", leave=False):
        count = min(CHUNK, first + stage.subjects - start)
        yield source.sets(start, count, stage.pictures, stage.resolution, device)


def mirror(sets: RenderedSets) -> RenderedSets:
    """Return the sets seen in a mirror: no word of a caption tells left from right."""
    return replace(sets, pictures=sets.pictures.flip(-1), masks=sets.masks.flip(-1))


def _with_mirrored(chunks: Iterator[RenderedSets], mirrored: bool) -> Iterator[RenderedSets]:
    for sets in chunks:
        yield sets
        if mirrored:
            yield mirror(sets)


@dataclass(frozen=True)
class LatentPool:
    """latents (S, N, C, h, h) float16; coverage (S, N, h, h) uint8, 255 where the subject fills a latent's
    patch; captions (S, N, K) and names (S, K) int16 token ids; empty (K,) int16, the empty caption.
    """

    latents: Tensor
    coverage: Tensor
    captions: Tensor
    names: Tensor
    empty: Tensor

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        source: SetSource,
        first: int,
        stage: JointStage,
        autoencoder: PatchAutoencoder,
        tokenizer: CLIPTokenizer,
        device: str,
        precision: Precision = "auto",
    ) -> "LatentPool":
        """Render and encode the stage's sets, mirrored ones after their originals; the pool's tensors stay on
        `device`.
        """
        columns: dict[str, list[Tensor]] = {item.name: [] for item in fields(cls) if item.name != "empty"}
        for sets in _with_mirrored(rendered_chunks(source, first, stage, device), stage.mirrored):
            flat = sets.pictures.flatten(0, 1)
            with autocast(precision, device):
                latents = autoencoder.encode(to_unit(flat.to(device))).latent_dist.mode()
            columns["latents"].append((latents.float() * autoencoder.config["scaling_factor"]).half())
            covered = F.adaptive_avg_pool2d(sets.masks.flatten(0, 1).to(device).float(), latents.shape[-1])
            columns["coverage"].append((covered * 255).round().to(torch.uint8))
            texts = [caption for captions in sets.captions for caption in captions]
            columns["captions"].append(tokenize(tokenizer, texts).short().to(device))
            columns["names"].append(tokenize(tokenizer, sets.names).short().to(device))
        flat_columns = {name: torch.cat(parts) for name, parts in columns.items()}
        for name in ("latents", "coverage", "captions"):
            flat_columns[name] = flat_columns[name].unflatten(0, (-1, stage.pictures))
        return cls(**flat_columns, empty=tokenize(tokenizer, [""])[0].short().to(device))

    def tensors(self) -> dict[str, Tensor]:
        return asdict(self)


def compose(set_sizes: dict[int, float], pictures: int) -> tuple[int, ...]:
    """Return the set sizes of every batch: about `pictures` pictures in all, split over the sizes by their
    weights.

    The same for every step, so that shapes never change within a stage.
    """
    total = sum(set_sizes.values())
    sizes: list[int] = []
    for size, weight in sorted(set_sizes.items()):
        sizes += [size] * max(1, round(pictures * weight / total / size))
    return tuple(sizes)


@dataclass(frozen=True)
class Draw:
    """A batch of sets: latents (I, C, h, h) float32, tokens (I, K) int64, mask (I, 1, 1, 1), weight (I, 1,
    h, h).
    """

    latents: Tensor
    tokens: Tensor
    mask: Tensor
    weight: Tensor


def draw_sets(
    pool: LatentPool, stage: JointStage, set_sizes: tuple[int, ...], generator: torch.Generator
) -> Draw:
    """Random subjects, distinct pictures of each, references and captions, by the stage's probabilities.

    Every set of two or more keeps at least one target: a set of references alone teaches nothing.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    sets, pictures = len(set_sizes), pool.latents.shape[1]
    sizes = torch.tensor(set_sizes)
    owner = torch.arange(sets).repeat_interleave(sizes)
    subject = torch.randint(len(pool.latents), (sets,), generator=generator)[owner]
    order = uniform(sets, pictures).argsort(1)
    place = torch.cat([torch.arange(size) for size in set_sizes])
    which = order[owner, place]

    reference = uniform(len(owner)) < stage.reference
    spared = (uniform(sets) * sizes).long() + sizes.cumsum(0) - sizes
    crowded = torch.zeros(sets).index_add_(0, owner, reference.float()) == sizes
    reference[spared[crowded]] = False

    device = pool.latents.device
    subject, which, owner, reference = (t.to(device) for t in (subject, which, owner, reference))
    tokens = pool.captions[subject, which]
    kind = uniform(len(owner)).to(device)
    name_only = reference & (kind < stage.name_only)
    tokens = torch.where(name_only[:, None], pool.names[subject], tokens)
    no_caption = reference & (kind > 1 - stage.no_caption)
    no_text = (uniform(sets) < stage.no_text).to(device)[owner]
    tokens = torch.where((no_caption | no_text)[:, None], pool.empty, tokens)

    coverage = pool.coverage[subject, which].float().unsqueeze(1) / 255
    return Draw(
        latents=pool.latents[subject, which].float(),
        tokens=tokens.long(),
        mask=(~reference).float().view(-1, 1, 1, 1),
        weight=1 + stage.subject_weight * coverage,
    )
