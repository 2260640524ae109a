"""The model that ships with the package: a joint-image model trained on the toybox alone."""

from pathlib import Path

import torch

from jedi_diffusion.pipeline import JeDiPipeline

FOLDER = Path(__file__).parent / "weights" / "model"
"""The bundled model, a diffusers folder in float16."""


def folder_of(name: str) -> str:
    """Where the model called `name` lies: "toybox" is the bundled one; a folder or Hub id is itself."""
    return str(FOLDER) if name == "toybox" else name


def load_pipeline(dtype: torch.dtype = torch.float32) -> JeDiPipeline:
    """The bundled model (stored in float16) as a pipeline in `dtype`, on the CPU.

    It knows the toybox: its classes, scenes, styles and attributes (`jedi_toybox.world`).
    """
    return JeDiPipeline.from_pretrained(FOLDER, dtype=dtype)
