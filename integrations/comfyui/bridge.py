"""Between ComfyUI and jedi-diffusion: pictures, masks, models in ComfyUI's memory, progress, interrupts.

Letters: B pictures; H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from comfy import model_management, utils
from PIL import Image
from torch import Tensor, nn

from jedi_diffusion.app.engine import PREVIEW_STEPS

if TYPE_CHECKING:
    from jedi_diffusion.pipeline import JeDiPipeline

SHOWN = 4
"""Pictures of a preview, side by side."""
PREVIEW_SIDE = 512
"""Longer side of a preview in pixels, at most."""


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Return ComfyUI's images (B, H, W, 3 or 4) in 0..1 as RGB pictures; the fourth channel is left out."""
    pixels = (images[..., :3].float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return [Image.fromarray(each) for each in pixels]


def to_images(pictures: Sequence[Image.Image]) -> Tensor:
    """Return RGB pictures of one size as ComfyUI's images: (B, H, W, 3) float32 in 0..1."""
    return torch.from_numpy(np.stack([np.asarray(each) for each in pictures]).astype(np.float32) / 255)


def to_masks(mask: Tensor | None, count: int, size: tuple[int, int]) -> list[Image.Image | None]:
    """Return the mask (L, 255 where it is 1) of each of `count` pictures of `size`, (width, height).

    mask: (B, H, W) or (H, W) in 0..1, one for all or one each, of any size, as ComfyUI's own nodes take it.
    None, and zero everywhere, as `Load Image` gives it for a picture without transparency, is no mask.
    Raises UsageError for another number.
    """
    from jedi_diffusion.errors import UsageError

    if mask is None:
        return [None] * count
    layers = mask if mask.ndim == 3 else mask[None]
    if len(layers) not in (1, count):
        raise UsageError(f"There are {len(layers)} masks for {count} images; give one for all, or one each.")
    width, height = size
    fitted = F.interpolate(layers[:, None].float(), (height, width), mode="bilinear", antialias=True)[:, 0]
    levels = (fitted.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    drawn = [Image.fromarray(each) if each.any() else None for each in levels]
    return drawn if len(drawn) == count else drawn * count


@dataclass(eq=False)
class JointModel:
    """A pipeline whose weights ComfyUI moves onto the GPU and off it, as those of its own models."""

    name: str
    pipe: JeDiPipeline

    @cached_property
    def _patcher(self) -> Any:
        from comfy.model_patcher import ModelPatcher

        networks = [each for each in self.pipe.components.values() if isinstance(each, nn.Module)]
        device, home = model_management.get_torch_device(), model_management.unet_offload_device()
        return ModelPatcher(nn.ModuleList(networks), load_device=device, offload_device=home)

    def ready(self) -> JeDiPipeline:
        """Return the pipeline with all its weights on ComfyUI's device; other models make room."""
        model_management.load_models_gpu([self._patcher], force_full_load=True)
        return self.pipe


class Progress:
    """The bar of the node that runs, over `total` steps of all its calls, and rough pictures if `shows`.

    before: steps of the calls that are over.
    """

    def __init__(self, total: int, shows: bool = False) -> None:
        self.shows, self.before, self._bar = shows, 0, utils.ProgressBar(total)

    def after_step(self, step: int, preview: Callable[[], Sequence[Image.Image]]) -> None:
        """Show step `step` (from 0) of a call. Raises ComfyUI's own exception once the run is interrupted."""
        model_management.throw_exception_if_processing_interrupted()
        done = self.before + step + 1
        if done == self._bar.current:  # a long step says itself again, so that it can be interrupted
            return
        shown = preview()[:SHOWN] if self.shows and step % PREVIEW_STEPS == 1 else ()
        self._bar.update_absolute(done, preview=("JPEG", _beside(shown), PREVIEW_SIDE) if shown else None)


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return pictures of one size side by side."""
    width, height = pictures[0].size
    strip = Image.new("RGB", (width * len(pictures), height))
    for number, each in enumerate(pictures):
        strip.paste(each, (number * width, 0))
    return strip
