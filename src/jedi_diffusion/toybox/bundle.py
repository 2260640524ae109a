"""The model that ships with the package: a joint-image model trained on the toybox alone."""

from importlib.resources import as_file, files

import torch

from jedi_diffusion.pipeline import JeDiPipeline


def load_pipeline(dtype: torch.dtype = torch.float32) -> JeDiPipeline:
    """The bundled model (stored in float16) as a pipeline in `dtype`, on the CPU.

    It knows the toybox: its classes, scenes, styles and attributes (`jedi_diffusion.toybox.world`).
    """
    with as_file(files("jedi_diffusion.toybox") / "weights" / "model") as folder:
        return JeDiPipeline.from_pretrained(folder, dtype=dtype)
