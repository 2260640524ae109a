"""Training-free joint: a single-image model that shares attention over a set, untrained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jedi_diffusion.errors import UsageError
from jedi_diffusion.methods.joint import Joint

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from jedi_diffusion.pipeline import JeDiPipeline


@dataclass(frozen=True)
class TrainingFreeJoint:
    """Coupled self-attention (section 3.2) and the replacement trick (section 3.3), with nothing trained.

    Any SD-family model, by `JeDiPipeline.from_single_image_model`. What differs from JeDi: the network is
    never told which pictures are given (mask 1 and zero reference latents for all), so references reach the
    target through attention to their re-noised latents only. With a trained joint model as the backbone (the
    bundled one) its coupled attention is trained, its input is still withheld. `settings` are arguments of
    the pipeline's call. Raises UsageError for coupling "cached", whose clean references an untrained network
    takes for noise.
    """

    pipeline: JeDiPipeline
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.settings.get("coupling") not in (None, "joint"):
            raise UsageError("The training-free variant needs coupling 'joint'; it re-noises its references.")

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        joint = Joint(self.pipeline, self.settings | {"coupling": "joint"})
        with hidden_references(self.pipeline.unet):
            return joint(references, reference_prompts, prompts, seeds)


@contextmanager
def hidden_references(unet: torch.nn.Module) -> Iterator[None]:
    """Meanwhile a joint UNet reads mask 1 and zero reference latents for every picture."""
    module: Any = unet
    latents = module.config.out_channels

    def hide(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        seen = inputs[0].clone()
        seen[:, latents] = 1
        seen[:, latents + 1 :] = 0
        return (seen,)

    handle = module.conv_in.register_forward_pre_hook(hide)
    try:
        yield
    finally:
        handle.remove()
