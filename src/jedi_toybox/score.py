"""Scores of a personalizer on toybox subjects that nobody has seen: identity, prompt, copy, diversity.

Each pair is a held-out subject of its own and a prompt. A personalizer gets references (plain pictures in
other scenes) and the prompt. True renders give the scale:
- identity: likeness to a gallery of plain pictures of the subject in yet other scenes, none of them a
  reference; 0 is another subject of the same class rendered for the same prompt, 1 is another true picture
  of the subject for the prompt;
- prompt: 0 is the subject in a wrong scene, without the style and attribute asked for; 1 is a true render
  of the prompt;
- copy: the share of outputs nearer to a reference than true pictures in another scene ever are;
- diversity: how much pictures of one pair differ that have other seeds; 0 not at all, 1 as two true pictures
  of the subject for the prompt.

Letters: P pairs; R references; G gallery pictures; S seeds; H pixels of a side; I pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from jedi_diffusion.copies import COPY_SIDE, shifted_distance
from jedi_diffusion.errors import UsageError
from jedi_diffusion.estimates import Estimate, normalised, share
from jedi_diffusion.personalizer import Personalizer
from jedi_diffusion.pictures import contact_sheet
from jedi_toybox import world
from jedi_toybox.augmentation import blur
from jedi_toybox.bulk import render_many
from jedi_toybox.encoders import Encoders, prepare, prompt_agreement

GALLERY = 3
MAX_REFERENCES = 3
BLOB = 4.0  # pixels of blur at the encoders' size
NEXT_SEED = 2**20  # from one picture of a pair to its next; pairs count below it

Array = NDArray[np.float64]


class Pair(NamedTuple):
    """What is rendered for one subject and prompt. `truth` is what is asked for; `again` the same with
    another camera.
    """

    references: list[world.PictureSpec]
    gallery: list[world.PictureSpec]
    truth: world.PictureSpec
    again: world.PictureSpec
    other: world.PictureSpec
    another: world.PictureSpec
    wrong: world.PictureSpec

    @property
    def prompt(self) -> str:
        return self.truth.caption


def draw_pair(
    number: int,
    references: int,
    seed: int = 0,
    classes: Literal["known", "held_out"] = "known",
    alike: bool = False,
) -> Pair:
    """Pair `number`: the same for every personalizer; the first reference is the same for 1 and for 3.

    alike: all references are seen by one camera, in scenes of their own, instead of each by its own.
    """
    if not 1 <= references <= MAX_REFERENCES:
        raise UsageError(f"Pairs have 1 to {MAX_REFERENCES} references, not {references}.")
    split: world.Split = "held_out" if classes == "known" else "held_out_classes"
    first = (seed << 40) + 4 * number
    subject = world.sample_subject(first, split)
    rivals = [world.sample_subject(first + n, split, subject.noun) for n in (1, 2)]
    rng = np.random.default_rng([seed, number])
    scenes = [world.SCENES[place] for place in rng.permutation(len(world.SCENES))]
    truth = world.sample_picture(subject, 0, scene=scenes[0])
    asked = (truth.scene, truth.style, truth.attribute)
    plain = [
        world.sample_picture(subject, 2 + n, scene, style="", attribute="")
        for n, scene in enumerate(scenes[1:])
    ]
    return Pair(
        references=[replace(each, view=0 if alike else None) for each in plain[1 : 1 + references]],
        gallery=plain[1 + MAX_REFERENCES : 1 + MAX_REFERENCES + GALLERY],
        truth=truth,
        again=world.sample_picture(subject, 1, *asked),
        other=world.sample_picture(rivals[0], 0, *asked),
        another=world.sample_picture(rivals[1], 0, *asked),
        wrong=plain[0],
    )


class Scores(NamedTuple):
    """diversity: None where there is one picture a pair."""

    identity: Estimate
    prompt: Estimate
    copy: Estimate
    diversity: Estimate | None = None

    def record(self) -> dict[str, dict[str, float]]:
        return {name: value.record() for name, value in self._asdict().items() if value is not None}


class OverReferences(NamedTuple):
    """Scores with some references, and how much identity they gain over one reference, pair by pair."""

    scores: Scores
    gain: Estimate


@dataclass(frozen=True)
class Benchmark:
    """Pairs, all their true pictures, and the encoders that judge. Pictures are uint8: `references` (P, R,
    3, H, H), `gallery` (P, G, 3, H, H), the others (P, 3, H, H) as in `Pair`.
    """

    pairs: Sequence[Pair]
    encoders: Encoders
    references: Tensor
    gallery: Tensor
    truth: Tensor
    again: Tensor
    other: Tensor
    another: Tensor
    wrong: Tensor

    @classmethod
    def render(cls, pairs: Sequence[Pair], encoders: Encoders, size: int, device: str = "cpu") -> "Benchmark":
        """Return the pairs rendered at size x size."""
        columns: dict[str, list[world.PictureSpec]] = {}
        for name in Pair._fields:
            each = [getattr(pair, name) for pair in pairs]
            columns[name] = [spec for item in each for spec in (item if isinstance(item, list) else [item])]
        specs = [spec for column in columns.values() for spec in column]
        drawn = render_many(specs, size, device, "true pictures").pictures
        parts = dict(zip(columns, drawn.split([len(column) for column in columns.values()]), strict=True))
        for name in ("references", "gallery"):
            parts[name] = parts[name].unflatten(0, (len(pairs), -1))
        return cls(pairs, encoders, **parts)

    @property
    def size(self) -> int:
        return self.truth.shape[-1]

    def run(self, personalizer: Personalizer, seed: int = 0) -> Tensor:
        """Return the personalizer's pictures, (P, 3, H', W') uint8, one a pair, with a seed of its own for
        each.
        """
        made = []
        for number, (pair, given) in enumerate(
            zip(tqdm(self.pairs, unit="pair"), self.references, strict=True)
        ):
            names = [pair.truth.subject.phrase] * len(given)
            (picture,) = personalizer(
                [to_picture(each) for each in given], names, [pair.prompt], [seed + number]
            )
            made.append(torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1))
        return torch.stack(made)

    def run_again(self, personalizer: Personalizer, seeds: int, seed: int = 0) -> Tensor:
        """Return the pictures of `run` but for the seed, (P, S - 1, 3, H', W') uint8, of S seeds in all."""
        made = [self.run(personalizer, seed + NEXT_SEED * number) for number in range(1, seeds)]
        return torch.stack(made, dim=1)

    def score(self, outputs: Tensor, others: Tensor | None = None) -> Scores:
        """Return the scores of pictures.

        outputs: (P, 3, H', W') uint8, one a pair in order; others: of `run_again`, for diversity.
        """
        if len(outputs) != len(self.pairs):
            raise UsageError(f"{len(outputs)} pictures cannot be scored for {len(self.pairs)} pairs.")
        reading = self.encoders.read(outputs)
        floor, ceiling = self._identity_scale
        identity = normalised(self._likeness(reading.identity), floor, ceiling)
        floor, ceiling = self._prompt_scale
        prompt = normalised(self._agreement(reading.fields), floor, ceiling)
        copied = self.distance_to_references(outputs) < self.copy_threshold
        diversity = None
        if others is not None and others.shape[1]:
            diversity = self.diversity([outputs, *others.unbind(1)])
        return Scores(identity, prompt, share(copied), diversity)

    def identity_gain(self, outputs: Tensor, before: Tensor) -> Estimate:
        """How much more identity outputs have than others of the same pairs, both (P, 3, H', W') uint8."""
        now, then = (self._likeness(self.encoders.read(each).identity) for each in (outputs, before))
        return self._gain(now, then)

    def _gain(self, likeness: Array, before: Array) -> Estimate:
        floor, ceiling = self._identity_scale
        return normalised(likeness - before, np.zeros(len(before)), ceiling - floor)

    def diversity(self, pictures: Sequence[Tensor]) -> Estimate:
        """Of S pictures for each pair, each (P, 3, H', W') uint8: their mean distance, in that of two true
        pictures.
        """
        values = torch.stack([picture_distance(*both) for both in combinations(pictures, 2)]).mean(0)
        ceiling = picture_distance(self.again, self.truth).double().numpy()
        return normalised(values.double().numpy(), np.zeros(len(self.pairs)), ceiling)

    def over_references(
        self, personalizer: Personalizer, apart: Tensor, alike: Tensor, seed: int = 0
    ) -> dict[str, OverReferences]:
        """Return the personalizer with 1 to R references of different views, `apart` (P, R, 3, H, H), then
        with 2 to R of one view, `alike`. Subjects, prompts, seeds and truths are the same in every row.
        """
        count = apart.shape[1]
        given = {f"{n} of {n} views" if n > 1 else "1": apart[:, :n] for n in range(1, count + 1)}
        given |= {f"{n} of one view": alike[:, :n] for n in range(2, count + 1)}
        rows: dict[str, OverReferences] = {}
        single = None
        for name, references in given.items():
            benchmark = replace(self, references=references)
            outputs = benchmark.run(personalizer, seed)
            likeness = self._likeness(self.encoders.read(outputs).identity)
            single = likeness if single is None else single
            rows[name] = OverReferences(benchmark.score(outputs), self._gain(likeness, single))
        return rows

    def baselines(self) -> dict[str, Scores]:
        """Scores of answers that are known: they show that the scale is right."""
        first = self.references[:, 0]
        answers = {
            "true render": (self.again, self.truth),
            "another subject": (self.another, self.other),
            "copy of the reference": (first, first),
            "true render as a blob": (self._blobs(), None),
        }
        return {
            name: self.score(pictures, None if others is None else others[:, None])
            for name, (pictures, others) in answers.items()
        }

    def _blobs(self) -> Tensor:
        """Return the right colours in the right places, and no shape."""
        return (blur(prepare(self.again), BLOB) * 255).round().to(torch.uint8)

    @cached_property
    def copy_threshold(self) -> float:
        """The smallest distance between a reference and a true picture of the same subject in another
        scene.
        """
        others = [self.truth, self.wrong, *self.gallery.unbind(1)]
        return min(float(self.distance_to_references(each).min()) for each in others)

    def distance_to_references(self, pictures: Tensor) -> Array:
        """(P,) from each pair's picture to the nearest of its references."""
        each = [picture_distance(pictures, reference) for reference in self.references.unbind(1)]
        return torch.stack(each).amin(0).double().numpy()

    @cached_property
    def _gallery_identity(self) -> Tensor:
        return self.encoders.read(self.gallery.flatten(0, 1)).identity.unflatten(0, (len(self.pairs), -1))

    def _likeness(self, identity: Tensor) -> Array:
        """(P,) mean cosine to the gallery."""
        return torch.einsum("pd,pgd->pg", identity, self._gallery_identity).mean(1).double().numpy()

    def _agreement(self, fields: dict[str, Tensor]) -> Array:
        return prompt_agreement(fields, [pair.truth for pair in self.pairs]).double().numpy()

    @cached_property
    def _identity_scale(self) -> tuple[Array, Array]:
        floor, ceiling = (
            self._likeness(self.encoders.read(each).identity) for each in (self.other, self.truth)
        )
        return floor, ceiling

    @cached_property
    def _prompt_scale(self) -> tuple[Array, Array]:
        floor, ceiling = (
            self._agreement(self.encoders.read(each).fields) for each in (self.wrong, self.truth)
        )
        return floor, ceiling


def picture_distance(first: Tensor, second: Tensor) -> Tensor:
    """(I,) root mean square difference, in 0..1, of whole pictures brought to COPY_SIDE pixels, the least
    over shifts of up to COPY_SHIFT of them. Both uint8 (I, 3, H, W), of any sizes.
    """
    one, two = (
        F.interpolate(each.float() / 255, (COPY_SIDE, COPY_SIDE), mode="bilinear", antialias=True)
        for each in (first, second)
    )
    return torch.from_numpy(shifted_distance(one.numpy(), two.numpy()))


def to_picture(picture: Tensor) -> Image.Image:
    """(3, H, W) uint8 as a Pillow picture."""
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def score_sheet(benchmark: Benchmark, outputs: Tensor, title: str, pairs: int = 36) -> Image.Image:
    """Return the first pairs, two a row: the references, what was made of them, and a true render of the
    prompt.
    """
    cells = []
    for pair, given, made, truth in zip(
        benchmark.pairs[:pairs], benchmark.references, outputs, benchmark.truth, strict=False
    ):
        references = [(to_picture(each), "reference") for each in given]
        cells.append([*references, (to_picture(made), pair.prompt), (to_picture(truth), "true render")])
    rows = [[cell for row in cells[start : start + 2] for cell in row] for start in range(0, len(cells), 2)]
    return contact_sheet(rows, cell=benchmark.size, title=title)
