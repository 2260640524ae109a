"""Networks that denoise sets of images, a file for each family."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from jedi_diffusion.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from jedi_diffusion.backbones.base import Backbone

FAMILIES = {
    "UNet2DConditionModel": f"{__name__}.unet.UNetBackbone",
    "Flux2Transformer2DModel": f"{__name__}.flux2.Flux2Backbone",
}
"""By the name of a network's class: where the backbone is that knows its family."""


def family_of(network: nn.Module) -> type[Backbone]:
    """Return the backbone class for a network. Raises ModelError for a class of no known family."""
    names = [each.__name__ for each in type(network).__mro__]  # FSDP puts a subclass in a class's place
    name = next((name for name in names if name in FAMILIES), None)
    if name is None:
        raise ModelError(f"A {names[0]} cannot be made joint; known are {', '.join(FAMILIES)}.")
    module, _, kind = FAMILIES[name].rpartition(".")
    found: type[Backbone] = getattr(import_module(module), kind)
    return found
