"""The toybox: a procedural world of subjects, scenes and styles, and the bundled model that was trained on
it.

Importing the package loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from jedi_diffusion.pipeline import JeDiPipeline
    from jedi_toybox.world import sample_set

FOLDER = Path(__file__).parent / "weights" / "model"
"""The bundled model, a diffusers folder in float16."""

__all__ = ["FOLDER", "folder_of", "load_pipeline", "sample_set"]


def folder_of(name: str) -> str:
    """Return where a model lies: "toybox" is the bundled one; a folder or Hub id is itself."""
    return str(FOLDER) if name == "toybox" else name


def load_pipeline(dtype: torch.dtype | None = None) -> JeDiPipeline:
    """Return the bundled model (stored in float16) as a pipeline in `dtype`, on the CPU; None is float32.

    It knows the toybox: its classes, scenes, styles and attributes (`jedi_toybox.world`).
    """
    import torch

    from jedi_diffusion.pipeline import JeDiPipeline

    return JeDiPipeline.from_pretrained(FOLDER, dtype=dtype or torch.float32)


def __getattr__(name: str) -> object:
    if name != "sample_set":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jedi_toybox.world import sample_set

    return sample_set
