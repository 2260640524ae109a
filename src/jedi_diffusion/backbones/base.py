"""What the joint model asks of a family of networks, and what all of them share: the two couplings.

Letters: I images in a batch; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, cast, get_args

import torch
from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from PIL import Image
from torch import nn

from jedi_diffusion.backbones.text import TextReader
from jedi_diffusion.errors import UsageError
from jedi_diffusion.inputs import Caption, Picture, to_image, to_pixels
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.cache import CacheView, CacheWriter, ReferenceCache
from jedi_diffusion.joint.process import Scheduler
from jedi_diffusion.joint.record import AttentionWriter
from jedi_diffusion.options import Coupling, Sampling
from jedi_diffusion.parts import Autoencoder, setting
from jedi_diffusion.references import OwnShape
from jedi_diffusion.sets import REFERENCE_TIMESTEP, Conditions, SetBatch


class Backbone(nn.Module, ABC):
    """A network of one family as a `joint.Denoiser`; a subclass says how to call it.

    A module, so that one call of it is one forward pass for wrappers such as DistributedDataParallel.

    lora_targets: the layers that adapters go on, as a regular expression over their names. shard_units: the
    blocks whose weights FSDP gathers at a time.
    clean_references: whether references are shown clean alone, never noised: they then carry no loss, and the
    null branch of guidance has none.
    size_multiple: what the sides of latents are multiples of. text_tokens: K of its captions, to count its
    work by. cache_untrained: whether published models were trained without cached references, so that
    coupling "cached" takes training.
    coupled_layers: names of the attention layers in which images of a set read each other; None for all.
    lora_loader: diffusers' mixin that reads the family's formats of adapters.
    most_text_tokens: what calls may ask captions to be cut at; None where their number is fixed.
    one_pass: whether `predict` runs the network once whatever the batch holds, as FSDP has to count on.
    tells_captioned: whether `encode_text` adds `captioned` (B,), which is false for empty captions.
    """

    lora_targets: ClassVar[str]
    shard_units: ClassVar[tuple[type[nn.Module], ...]]
    clean_references: bool = False
    coupled_layers: frozenset[str] | None = None
    lora_loader: ClassVar[type[LoraBaseMixin]] = StableDiffusionLoraLoaderMixin
    text_tokens: ClassVar[int] = 77
    size_multiple: ClassVar[int] = 1
    cache_untrained: ClassVar[bool] = False
    most_text_tokens: ClassVar[int | None] = None
    one_pass: ClassVar[bool] = True
    tells_captioned: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def make_joint(cls, network: nn.Module) -> None:
        """Turn a single-image network into a joint one, in place: the start of training.

        Raises ModelError for a network that cannot be one.
        """

    @classmethod
    @abstractmethod
    def couple(cls, network: nn.Module, distance_slope: float | None = None) -> None:
        """Put coupled attention into a joint network, in place; again, where something has replaced it.

        distance_slope: see `positions.distance_bias`; None: as the network has it. Raises ModelError for a
        network that is not joint, or whose attention cannot be coupled.
        """

    @classmethod
    def fresh(cls, network: nn.Module) -> nn.Module:
        """Return a joint network of the same architecture with new weights, on torch's default device."""
        kind = next(each for each in type(network).__mro__ if "FSDP" not in each.__name__)
        made: nn.Module = kind.from_config(network.config)  # type: ignore[attr-defined]
        cls.make_joint(made)  # a config of diffusers forgets what widened it
        cls.couple(made, cls(network).distance_slope)
        return made

    @classmethod
    @abstractmethod
    def is_coupled(cls, network: nn.Module) -> bool:
        """Return whether every attention layer that `couple` is about is coupled."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The network itself."""

    @property
    @abstractmethod
    def attention_layers(self) -> list[str]:
        """Names of the attention layers that couple images, in the order in which they run."""

    def layers_named(self, chosen: str) -> frozenset[str] | None:
        """Return names of attention layers, None for all.

        chosen: "all", or with commas between them: names or beginnings of names ("up", "up_blocks.1"), and
        numbers in the order in which layers run, from 0, or from the end if below 0, or ranges without their
        end ("10:16", "-6:"). Raises UsageError for what names no layer.
        """
        names, found = self.attention_layers, set[str]()
        if chosen.strip() == "all":
            return None
        for item in map(str.strip, chosen.split(",")):
            if re.fullmatch(r"-?\d+", item):
                number = int(item)
                named = names[number:][:1] if -len(names) <= number < len(names) else []
            elif re.fullmatch(r"(-?\d+)?:(-?\d+)?", item):
                start, stop = (int(each) if each else None for each in item.split(":"))
                named = names[start:stop]
            else:
                named = [name for name in names if name.startswith((f"{item}.", f"{item}_")) or name == item]
            if not named:
                raise UsageError(
                    f"coupled_layers names {item!r}, but the {len(names)} attention layers of this model are "
                    f"called {names[0]} (0) to {names[-1]} ({len(names) - 1})."
                )
            found.update(named)
        return frozenset(found)

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """C of the latents that it denoises."""

    @property
    def latent_size(self) -> tuple[int | None, int | None]:
        """Height and width of the latents that it was made for; None where it does not say."""
        own = getattr(self.network.config, "sample_size", None)
        return own if isinstance(own, list | tuple) else (own, own)  # type: ignore[return-value]

    @abstractmethod
    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor | float, batch: SetBatch, reads: SetReads
    ) -> torch.Tensor:
        """Return the network's prediction (I, C, H, W) in the dtype of `noisy`, in one pass.

        timestep: a scalar or (I,). Raises UsageError for conditions that the network lacks.
        """

    @property
    def lora_ranks(self) -> dict[str, int]:
        """Ranks of adapters on layers that need one of their own, by name."""
        return {}

    @property
    def own_shape(self) -> OwnShape | None:
        """How references are read that keep their shape; None where they are cut to that of the targets."""
        return None

    @property
    def trained_references(self) -> int | None:
        """Most references of a set in training, where the family says it."""
        return None

    @property
    def own_guidance(self) -> float | None:
        """What a network that takes guidance as an input is told where a batch has no `guidance` (I,); None
        for one that takes none."""
        return None

    def reads_empty_captions(self, coupling: Coupling) -> bool:
        """Return whether references without a caption read the empty one, rather than none."""
        return True

    @property
    def distance_slope(self) -> float:
        """How much attention prefers near positions (`positions.distance_bias`); 0 for not at all."""
        return 0.0

    @abstractmethod
    def encode_text(
        self, reader: TextReader, captions: Sequence[Caption], device: torch.device
    ) -> Conditions:
        """Return captions as the network reads them: `text` (B, K, D) and what its family adds.

        Raises UsageError for what `inputs.check_prompt` refuses.
        """

    def stride(self, vae: Autoencoder) -> int:
        """Return how many pixels a latent stands for along a side."""
        blocks = vae.config["block_out_channels"]
        assert isinstance(blocks, list | tuple)
        factor: int = 2 ** (len(blocks) - 1)
        return factor

    def encode_images(self, vae: Autoencoder, pixels: torch.Tensor) -> torch.Tensor:
        """Return images (B, 3, H, W) in [-1, 1] as scaled latents in float32, the encoder's mode."""
        with _without_overflow(vae):
            latents = vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float()
        return (latents - _shift(vae)) * setting(vae.config, "scaling_factor", float)

    def decode_latents(self, vae: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
        """Return scaled latents as images (B, 3, H, W) float32, about [-1, 1], not clipped."""
        with _without_overflow(vae):
            latents = latents / setting(vae.config, "scaling_factor", float) + _shift(vae)
            return vae.decode(latents.to(vae.dtype)).sample.float()

    def fit_references(self, pictures: Sequence[Picture], size: tuple[int, int]) -> list[torch.Tensor]:
        """Return references as the family reads them: (3, H, W) float32 in [-1, 1] each.

        size: height and width of the targets; by default references are cut to its shape and resized. Raises
        UsageError that names the number of one that cannot be read.
        """
        return list(to_pixels(pictures, *size))

    def images_in_own_shape(self, pictures: Sequence[Picture]) -> list[Image.Image]:
        """Return references as RGB images. Raises UsageError also for one that `own_shape` refuses."""
        images = [to_image(picture, number) for number, picture in enumerate(pictures, start=1)]
        for number, image in enumerate(images, start=1):
            if self.own_shape is not None:
                self.own_shape.check(image.size, f"Reference {number}")
        return images

    def own_sampling(self, is_distilled: bool) -> Sampling:
        """Return what a call takes that says nothing; is_distilled: to few steps without guidance."""
        return Sampling()

    def set_timesteps(
        self,
        scheduler: Scheduler,
        steps: int,
        size: tuple[int, int],
        device: torch.device,
        given: Mapping[str, list[float]] | None = None,
    ) -> None:
        """Set a scheduler's steps for targets of this height and width in latents.

        given: "sigmas" or "timesteps" of every step in place of the family's own.
        """
        if given:
            scheduler.set_timesteps(None, device=device, **given)
        else:
            scheduler.set_timesteps(steps, device=device)

    def size_conditions(self, count: int, height: int, width: int, device: torch.device | str) -> Conditions:
        """Return the conditions of `count` images that follow from their size in pixels, a row each."""
        return {}

    @abstractmethod
    def example_conditions(self, count: int, text_tokens: int) -> Conditions:
        """Return conditions of the right shapes for `count` images, on the network's device; zeros."""

    def forward(
        self,
        noisy: torch.Tensor,
        timestep: torch.Tensor | float,
        batch: SetBatch,
        coupling: Coupling = "joint",
        reference_cache: CacheView | None = None,
        attention_record: AttentionWriter | None = None,
    ) -> torch.Tensor:
        """noisy (I, C, H, W) and a timestep, scalar or (I,), to the prediction (I, C, H, W) in noisy's dtype.

        coupling "joint": all images of a set attend to each other. "cached" without a cache (training): the
        references of each set run first, on clean latents at REFERENCE_TIMESTEP whatever `noisy` holds for
        them, and each target reads them and itself; gradients flow through both. "cached" with a view of a
        filled cache (sampling): `batch` holds targets only, whose sets read what the view gives them.
        attention_record: takes down where targets look, while sampling only. Raises UsageError for an unknown
        coupling or conditions that the network lacks.
        """
        if coupling not in get_args(Coupling):
            raise UsageError(f"Unknown coupling {coupling!r}; it is 'joint' or 'cached'.")
        if coupling == "joint":
            if reference_cache is not None:
                raise UsageError("A reference cache needs coupling 'cached'.")
            return self._run(noisy, timestep, batch, None, attention_record)
        if reference_cache is not None:
            return self._run(noisy, timestep, batch, reference_cache, attention_record)
        if attention_record is not None:
            raise UsageError("With coupling 'cached', attention is recorded where a filled cache is read.")
        return self._run_both(noisy, timestep, batch)

    def fill_cache(self, references: SetBatch) -> ReferenceCache:
        """Fill a cache by one pass over sets of references alone; the cache's set s is the batch's set s.

        The caller owns the cache: `cache.for_sets(...)` gives what `forward` reads.
        """
        cache = ReferenceCache()
        self._read_references(references, cache.writer(references.set_sizes))
        return cache

    def _run(
        self,
        noisy: torch.Tensor,
        timestep: torch.Tensor | float,
        batch: SetBatch,
        cache: CacheWriter | CacheView | None = None,
        record: AttentionWriter | None = None,
    ) -> torch.Tensor:
        height, width = noisy.shape[-2:]
        reads = SetReads(
            batch.set_sizes,
            cache,
            record,
            (height, width),
            visibility=batch.visibility,
            layers=self.coupled_layers,
        )
        return self.predict(noisy, timestep, batch, reads)

    def _read_references(self, references: SetBatch, writer: CacheWriter) -> torch.Tensor:
        if not bool(references.is_reference.all()):
            raise UsageError(
                "A reference cache is filled from references only; the batch holds targets (mask 1)."
            )
        return self._run(references.latents, REFERENCE_TIMESTEP, references, writer)

    def _run_both(self, noisy: torch.Tensor, timestep: torch.Tensor | float, batch: SetBatch) -> torch.Tensor:
        """Run references, then targets reading them; return outputs in the order of the batch."""
        flags = batch.is_reference.tolist()
        rows = {kind: [row for row, flag in enumerate(flags) if flag is kind] for kind in (True, False)}
        reference_sizes, index = _split_sets(flags, batch.set_sizes)
        outputs, cache = [], ReferenceCache()
        if reference_sizes:
            references = batch.select(rows[True], reference_sizes)
            outputs.append(self._read_references(references, cache.writer(reference_sizes)).to(noisy.dtype))
        if index:
            targets = batch.select(rows[False], (1,) * len(index))
            steps = timestep
            if isinstance(timestep, torch.Tensor) and timestep.ndim:
                steps = timestep[rows[False]]
            outputs.append(self._run(noisy[rows[False]], steps, targets, cache.for_sets(index)))
        order = rows[True] + rows[False]
        back = sorted(range(len(order)), key=order.__getitem__)
        return torch.cat(outputs)[back]


def _shift(vae: Autoencoder) -> float:
    return setting(vae.config, "shift_factor", float, 0.0)


def _split_sets(flags: Sequence[bool], set_sizes: Sequence[int]) -> tuple[tuple[int, ...], list[int | None]]:
    """Return sizes of the reference sets, and for each target which of those sets it reads, or None."""
    sizes: list[int] = []
    index: list[int | None] = []
    start = 0
    for size in set_sizes:
        count = sum(flags[start : start + size])
        index += [len(sizes) if count else None] * (size - count)
        if count:
            sizes.append(count)
        start += size
    return tuple(sizes), index


@contextmanager
def _without_overflow(vae: Autoencoder) -> Iterator[None]:
    """SDXL's autoencoder overflows in half precision (`force_upcast`): full precision meanwhile."""
    dtype = vae.dtype
    upcast = dtype == torch.float16 and setting(vae.config, "force_upcast", bool, False)
    if upcast:
        cast(nn.Module, vae).to(torch.float32)
    try:
        yield
    finally:
        if upcast:
            cast(nn.Module, vae).to(dtype)
