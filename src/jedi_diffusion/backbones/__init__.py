"""Networks that denoise sets of images, a file for each family."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jedi_diffusion.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from jedi_diffusion.backbones.base import Backbone

PARTS = ("unet", "transformer")
"""Names of the network that denoises among a pipeline's components."""
FAMILIES = {
    "UNet2DConditionModel": f"{__name__}.unet.UNetBackbone",
    "Flux2Transformer2DModel": f"{__name__}.flux2.Flux2Backbone",
    "FluxTransformer2DModel": f"{__name__}.flux.FluxBackbone",
    "SD3Transformer2DModel": f"{__name__}.sd3.SD3Backbone",
}
"""By the name of a network's class: where the backbone is that knows its family."""

PUBLISHED: dict[str, dict[str, Any]] = {
    "Flux2KleinPipeline": {"coupling": "joint"},
    "Flux2KleinKVPipeline": {"coupling": "cached", "is_distilled": True},
}
"""Of the pipelines of diffusers those whose models read references as they are: what `JeDiPipeline` has to be
told of them, beside what their folders say."""


def family_of(network: nn.Module) -> type[Backbone]:
    """Return the backbone class for a network. Raises ModelError for a class of no known family."""
    names = [each.__name__ for each in type(network).__mro__]  # FSDP puts a subclass in a class's place
    name = next((name for name in names if name in FAMILIES), None)
    if name is None:
        raise ModelError(f"A {names[0]} cannot be made joint; known are {', '.join(FAMILIES)}.")
    module, _, kind = FAMILIES[name].rpartition(".")
    found: type[Backbone] = getattr(import_module(module), kind)
    return found


def skeleton(base: str | Path) -> nn.Module:
    """Return the joint network that a model's configuration files describe, without memory for weights.

    base: a folder or Hub id in diffusers' format. Raises ModelError.
    """
    import diffusers
    import torch

    try:
        index = diffusers.DiffusionPipeline.load_config(base)
        part = next(part for part in PARTS if any(index.get(part) or ()))
        kind = getattr(diffusers, index[part][1])
        config = kind.load_config(base, subfolder=part)
    except StopIteration:
        raise ModelError(f"The model {base} has neither a unet nor a transformer.") from None
    except (OSError, ValueError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"The configuration of {base} cannot be read: {reason}") from error
    with torch.device("meta"):
        network: nn.Module = kind.from_config(config)
        family_of(network).make_joint(network)
    return network
