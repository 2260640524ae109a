"""Joint-image diffusion (JeDi, CVPR 2024): a diffusion model of sets of pictures that share a subject.

Names are resolved on first use, so that importing the package loads neither torch nor diffusers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jedi_diffusion.networks.autoencoder import PatchAutoencoder
    from jedi_diffusion.pipeline import JeDiPipeline, JeDiPipelineOutput
    from jedi_diffusion.references import Reference
    from jedi_diffusion.sets import ImageSet, SetBatch

__version__ = "0.1.0"

_HOMES = {
    "ImageSet": "sets",
    "SetBatch": "sets",
    "PatchAutoencoder": "model.autoencoder",
    "JeDiPipeline": "pipeline",
    "JeDiPipelineOutput": "pipeline",
    "Reference": "references",
}

__all__ = [
    "ImageSet",
    "JeDiPipeline",
    "JeDiPipelineOutput",
    "PatchAutoencoder",
    "Reference",
    "SetBatch",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
