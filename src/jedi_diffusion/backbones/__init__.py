"""Networks that denoise sets of images, a file for each family."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from jedi_diffusion.errors import ModelError
from jedi_diffusion.parts import Config

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers.models.modeling_utils import ModelMixin
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

PUBLISHED: dict[str, dict[str, str | bool]] = {
    "Flux2KleinPipeline": {"coupling": "joint"},
    "Flux2KleinKVPipeline": {"coupling": "cached", "is_distilled": True},
    "Flux2Pipeline": {"coupling": "joint"},
    "FluxKontextPipeline": {"coupling": "joint"},
}
"""Of the pipelines of diffusers those whose models read references as they are: what `JeDiPipeline` has to be
told of them, beside what their folders say."""

SINGLE_IMAGE: dict[str, dict[str, str | bool]] = {
    "FluxPipeline": {"clean_references": False},
    "FluxFillPipeline": {"clean_references": False},
}
"""Of models that were trained without references in a family that has others: what `JeDiPipeline` has to be
told of them."""


def family_of(network: nn.Module) -> type[Backbone]:
    """Return the backbone class for a network. Raises ModelError for a class of no known family."""
    names = [each.__name__ for each in type(network).__mro__]  # FSDP puts a subclass in a class's place
    name = next((name for name in names if name in FAMILIES), None)
    if name is None:
        raise ModelError(f"A {names[0]} cannot be made joint; known are {', '.join(FAMILIES)}.")
    module, _, kind = FAMILIES[name].rpartition(".")
    found: type[Backbone] = getattr(import_module(module), kind)
    return found


def network_class(index: Config, base: str | Path) -> tuple[str, type[ModelMixin]]:
    """Return what a model's network is called, "unet" or "transformer", and its class.

    index: its model_index.json; base: the model's name. Raises ModelError.
    """
    import diffusers

    for part in PARTS:
        entry = index.get(part)
        name = entry[1] if isinstance(entry, list | tuple) else None
        if name is not None and name not in FAMILIES:
            raise ModelError(f"The {part} of {base} is a {name}; known are {', '.join(FAMILIES)}.")
        if name is not None:
            return part, getattr(diffusers, name)
    raise ModelError(f"The model {base} has neither a unet nor a transformer.")


def skeleton(base: str | Path) -> nn.Module:
    """Return the joint network that a model's configuration files describe, without memory for weights.

    base: a folder or Hub id in diffusers' format. Raises ModelError.
    """
    import torch

    from jedi_diffusion.weights import model_index

    try:
        part, kind = network_class(model_index(base), base)
        config = kind.load_config(base, subfolder=part)  # type: ignore[attr-defined]  # all are ConfigMixins
    except ModelError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"The configuration of {base} cannot be read: {reason}") from error
    with torch.device("meta"):
        network: nn.Module = kind.from_config(config)  # type: ignore[attr-defined]
        family_of(network).make_joint(network)
    return network
