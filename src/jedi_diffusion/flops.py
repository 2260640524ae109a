"""Floating-point operations and memory of sampling, counted on shapes alone: networks run on the meta device.

Letters: R references; T targets; h, w latents along the sides of an image; K text tokens.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.errors import ModelError
from jedi_diffusion.joint.cache import ReferenceCache
from jedi_diffusion.joint.guidance import Guidance
from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.options import Coupling, NullSet
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.visibility import Visibility

Size = tuple[int, int]
AUTOENCODERS = (AutoencoderKL, AutoencoderKLFlux2, PatchAutoencoder)


@torch.no_grad()
def counted(run: Callable[[], object]) -> float:
    """Return the floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


@dataclass(frozen=True)
class SamplingFlops:
    """What passes of one set cost. alone: its targets without references; joint: all of it; references: their
    own pass, 0 without them; kept: the targets reading what that has kept."""

    alone: float
    joint: float
    references: float
    kept: float

    def of(
        self,
        guidance: Guidance,
        steps: int,
        coupling: Coupling,
        null_set: NullSet = "single",
        is_kept: bool = False,
        captioned: bool = True,
    ) -> float:
        """Return what a call costs a set. is_kept: whether the references were read at an earlier one;
        captioned: whether they read captions, so that branches with and without text need a pass each.
        """
        reading, without = (self.joint, self.alone) if coupling == "joint" else (self.kept, self.alone)
        if coupling == "joint" and null_set == "joint":
            without = self.joint
        plans = [guidance.at(step, steps) for step in range(steps)]
        passes = sum(reading if each.pictures else without for plan in plans for each in plan.branches)
        texts = {each.text for plan in plans for each in plan.branches if each.pictures}
        once = coupling == "cached" and not is_kept
        return passes + (self.references * (len(texts) if captioned else 1) if once else 0)


def count_sampling(
    backbone: Backbone,
    targets: Sequence[Size],
    references: Sequence[Size],
    text_tokens: int | None = None,
    share: float = 1.0,
) -> SamplingFlops:
    """Count the passes of a set of targets and references of these sizes (h, w).

    backbone: on the meta device. text_tokens: K, the family's own if not given; references have no captions.
    share: of each reference's tokens, what others read.
    """
    where: Any = "meta"
    sizes = [*references, *targets]
    height, width = (max(each[axis] for each in sizes) for axis in (0, 1))
    conditions = backbone.example_conditions(len(sizes), text_tokens or backbone.text_tokens)
    if len(set(sizes)) > 1:
        conditions["extent"] = torch.tensor(sizes)
    seen = None if share == 1 else Visibility(_upper(share))
    batch = SetBatch(
        latents=torch.empty(len(sizes), backbone.latent_channels, height, width, device=where),
        mask=torch.tensor([float(row >= len(references)) for row in range(len(sizes))]).view(-1, 1, 1, 1),
        conditions={name: each.to(where) if name != "extent" else each for name, each in conditions.items()},
        set_sizes=(len(sizes),),
        visibility=(seen,) * len(references) + (None,) * len(targets) if seen else None,
    )
    first, last = range(len(references)), range(len(references), len(sizes))
    alone = batch.select(list(last), (len(targets),))
    time, caches = torch.zeros((), device=where), []

    def run(part: SetBatch, cache: ReferenceCache | None = None) -> float:
        given = {} if cache is None else {"coupling": "cached", "reference_cache": cache.for_sets([0])}
        return counted(lambda: backbone(part.latents, time, part, **given))

    plain = run(alone)
    if not references:
        return SamplingFlops(plain, plain, 0.0, plain)
    own = batch.select(list(first), (len(references),))
    filling = counted(lambda: caches.append(backbone.fill_cache(own)))
    return SamplingFlops(plain, run(batch), filling, run(alone, caches[0]))


def _upper(share: float) -> torch.Tensor:
    """Return a mask whose upper part, so much of it, is read."""
    mask = torch.zeros(64, 64)
    mask[: max(1, round(64 * share))] = 1
    return mask


class MemoryCounter(TorchDispatchMode):
    """A context in which `peak` is the most bytes that tensors made in it held at one time.

    modules: whose weights do not count.
    """

    def __init__(self, modules: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known = {each.untyped_storage()._cdata for module in modules for each in module.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def networks_of(pipe: DiffusionPipeline) -> list[nn.Module]:
    """Return the parts of a pipeline that have weights."""
    return [each for each in pipe.components.values() if isinstance(each, nn.Module)]


@torch.no_grad()
def peak_bytes(run: Callable[[], object], pipe: DiffusionPipeline) -> int:
    """Return the most bytes that a call held beside the weights of a pipeline, on whatever device."""
    with MemoryCounter(networks_of(pipe)) as memory:
        run()
    return int(memory.peak)


def autoencoder_skeleton(base: str | Path) -> nn.Module:
    """Return the autoencoder that a model's configuration files describe, without memory for weights.

    base: a folder or Hub id in diffusers' format. Raises ModelError.
    """
    try:
        config: Any = AutoencoderKL.load_config(base, subfolder="vae")
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"The configuration of {base} cannot be read: {reason}") from error
    kind: Any = next(
        (each for each in AUTOENCODERS if each.__name__ == config.get("_class_name")), AutoencoderKL
    )
    with torch.device("meta"):
        made: nn.Module = kind.from_config(config)
    return made
