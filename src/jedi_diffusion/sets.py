"""Sets of pictures that share a subject, as pictures (`ImageSet`) and as tensors (`SetBatch`).

Letters: S sets in a batch; N pictures in a set; I pictures in a batch (sum of all N); C, H, W a latent's
channels, height, width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jedi_diffusion.errors import UsageError

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from jedi_diffusion.visibility import Visibility

REFERENCE_TIMESTEP = 0
"""The timestep at which references run when coupling is "cached": clean latents, no noise."""


@dataclass(frozen=True)
class ImageSet:
    """N pictures of one subject: RGB, of any sizes, each with its caption.

    subject names it ("dog"), source the collection. masks, where known, are 8-bit pictures of the pictures'
    sizes, 255 on the subject. info is provenance: plain JSON values. Training makes the pictures squares of
    one size (`data.mixture.square_set`), and draws which are references for each step (`train.plan`).
    """

    pictures: tuple[Image.Image, ...]
    captions: tuple[str, ...]
    subject: str = ""
    source: str = ""
    masks: tuple[Image.Image, ...] | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.pictures:
            raise UsageError("A set needs at least one picture.")
        for name, items in (("captions", self.captions), ("masks", self.masks)):
            if items is not None and len(items) != len(self.pictures):
                raise UsageError(f"A set has {len(self.pictures)} pictures but {len(items)} {name}.")

    def __len__(self) -> int:
        return len(self.pictures)


Conditions = dict[str, "torch.Tensor"]
"""What a network is conditioned on beside the images of a set, by name, a row an image. All have `text`
(I, K, D); a family adds its own, such as SDXL's `pooled_text` (I, P) and `time_ids` (I, 6)."""


def select_rows(conditions: Mapping[str, torch.Tensor], rows: Sequence[int] | torch.Tensor) -> Conditions:
    """Return the rows with these numbers, in this order, repeats allowed."""
    return {name: value[rows] for name, value in conditions.items()}


def split_rows(conditions: Mapping[str, torch.Tensor], sizes: Sequence[int]) -> list[Conditions]:
    """Return the rows in groups of these sizes, in order."""
    parts = [value.split(list(sizes)) for value in conditions.values()]
    return [dict(zip(conditions, group, strict=True)) for group in zip(*parts, strict=True)]


def concatenate_rows(parts: Sequence[Mapping[str, torch.Tensor]]) -> Conditions:
    """Return all rows in order. Raises UsageError if the parts do not have the same names."""
    import torch

    if any(each.keys() != parts[0].keys() for each in parts):
        raise UsageError("Only batches with the same fields can be joined.")
    return {name: torch.cat([each[name] for each in parts]) for name in parts[0]}


@dataclass(frozen=True)
class SetBatch:
    """What a joint-image model is conditioned on, for a batch of sets laid end to end.

    latents (I, C, H, W): clean latents x0, scaled; only those of references are ever shown to the model as
    such.
    mask (I, 1, 1, 1): the paper's M, 1 for a target, 0 for a reference.
    conditions: see `Conditions`; one caption an image.
    set_sizes: N of every set, in order; they sum to I.
    weight (I, 1, H, W): weights of the loss per latent, None for 1 everywhere.
    Images of different sizes are padded to one: their condition `extent` (I, 2) is the height and width that
    count, from the top left.
    blank (I, C, H, W): what targets show where references show their latents, None for zeros.
    visibility: for each image what the others of its set read of it, None for all; None: all of every image.
    """

    latents: torch.Tensor
    mask: torch.Tensor
    conditions: Conditions
    set_sizes: tuple[int, ...]
    weight: torch.Tensor | None = None
    blank: torch.Tensor | None = None
    visibility: tuple[Visibility | None, ...] | None = None

    def __post_init__(self) -> None:
        pictures = self.latents.shape[0]
        if min(self.set_sizes, default=0) < 1 or sum(self.set_sizes) != pictures:
            raise UsageError(
                f"Set sizes {self.set_sizes} do not add up to the {pictures} pictures of the batch."
            )
        for name, value in (*self._tensors(), *self.conditions.items()):
            if value.shape[0] != pictures:
                raise UsageError(f"`{name}` holds {value.shape[0]} rows for {pictures} pictures.")
        if self.visibility is not None and len(self.visibility) != pictures:
            raise UsageError(f"`visibility` has {len(self.visibility)} entries for {pictures} pictures.")

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name in ("latents", "mask", "weight", "blank"):
            value = getattr(self, name)
            if value is not None:
                yield name, value

    @property
    def text(self) -> torch.Tensor:
        """Text embeddings (I, K, D)."""
        return self.conditions["text"]

    @property
    def reference_latents(self) -> torch.Tensor:
        """x0 * (1 - M): the references' latents, zero (or `blank`) for targets (supplement, section 6)."""
        mask = self.mask.to(self.latents.device)  # where work is counted, only the mask has values
        shown = self.latents * (1 - mask)
        return shown if self.blank is None else shown + self.blank * mask

    @property
    def is_reference(self) -> torch.Tensor:
        """(I,) bool, true where M = 0."""
        return self.mask.flatten() < 0.5

    @property
    def extents(self) -> list[tuple[int, int]]:
        """Height and width in latents of each image, without padding."""
        given = self.conditions.get("extent")
        if given is None:
            return [(self.latents.shape[2], self.latents.shape[3])] * len(self.mask)
        return [(int(height), int(width)) for height, width in given.tolist()]

    def conditioned(self, conditions: Mapping[str, torch.Tensor]) -> SetBatch:
        """Return the batch with these conditions in place of those of the same names.

        A value of a single row serves every image.
        """
        images = len(self.mask)
        new = {name: value.expand(images, *value.shape[1:]) for name, value in conditions.items()}
        return replace(self, conditions=self.conditions | new)

    def to(self, target: torch.device | torch.dtype | str) -> SetBatch:
        """Return the batch with every tensor moved to a device or cast to a number format."""
        return replace(
            self,
            latents=self.latents.to(target),
            mask=self.mask.to(target),
            conditions={name: value.to(target) for name, value in self.conditions.items()},
            weight=None if self.weight is None else self.weight.to(target),
            blank=None if self.blank is None else self.blank.to(target),
        )

    def select(self, rows: Sequence[int] | torch.Tensor, set_sizes: Sequence[int]) -> SetBatch:
        """Return the pictures with these numbers, in this order, laid out as sets of the given sizes."""
        return SetBatch(
            latents=self.latents[rows],
            mask=self.mask[rows],
            conditions=select_rows(self.conditions, rows),
            set_sizes=tuple(set_sizes),
            weight=None if self.weight is None else self.weight[rows],
            blank=None if self.blank is None else self.blank[rows],
            visibility=self.visibility and tuple(self.visibility[int(row)] for row in rows),
        )

    @staticmethod
    def concatenate(batches: Sequence[SetBatch]) -> SetBatch:
        """Return one batch of all sets, in order; every batch must hold the same fields."""
        tensors = concatenate_rows([dict(batch._tensors()) for batch in batches])
        visibility = [batch.visibility or (None,) * len(batch.mask) for batch in batches]
        return SetBatch(
            latents=tensors["latents"],
            mask=tensors["mask"],
            conditions=concatenate_rows([batch.conditions for batch in batches]),
            set_sizes=sum((batch.set_sizes for batch in batches), ()),
            weight=tensors.get("weight"),
            blank=tensors.get("blank"),
            visibility=sum(visibility, ()) if any(batch.visibility for batch in batches) else None,
        )
