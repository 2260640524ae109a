"""A detector and a segmenter for collages on a plain background, by classical means (scikit-image).

The background is a plane in each channel of CIELAB, fitted to the commonest color and what is near it; an
instance is a connected region that differs from it. Where seams divide a collage (`seams`), each tile has a
background of its own. What things are called is not looked at.
Letters: H, W pixels; R regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jedi_diffusion.errors import ModelError
from jedi_diffusion.synthesis.adapters.settings import PlainSettings
from jedi_diffusion.synthesis.seams import find_tiles
from jedi_diffusion.vision.detection import Box, Detection, Mask

NEAR = 12.0
"""Distance in CIELAB (about one just noticeable difference a 2.3) within which a pixel may be background."""
FITS = 3
"""Times that the plane is fitted, each time to what the last one left within `NEAR`."""
WEAK, STRONG = 5.0, 12.0
"""An instance is what differs by more than WEAK and holds something that differs by more than STRONG."""
SPECK = 0.0008
"""Smaller regions (part of the picture) are taken for noise."""

Distances = NDArray[np.float64]


def _import_scikit() -> Any:
    try:
        import skimage
    except ImportError as error:
        raise ModelError(
            "Segmenting plain backgrounds needs scikit-image: pip install 'jedi-diffusion[synthesis]'."
        ) from error
    return skimage


class _PlainBackground:
    def __init__(self) -> None:
        self._skimage = _import_scikit()
        self.fingerprint = f"plain background, scikit-image {self._skimage.__version__}"

    def _regions(self, picture: Image.Image) -> tuple[Distances, NDArray[np.int64]]:
        """Return the distance of each pixel from the background (H, W), and the number of its region, 0 for
        none.
        """
        pixels = np.asarray(picture)
        distances, regions = np.zeros(pixels.shape[:2]), np.zeros(pixels.shape[:2], dtype=np.int64)
        for left, top, right, bottom in find_tiles(picture):
            inside = np.s_[top:bottom, left:right]
            distances[inside], found = self._regions_of_tile(pixels[inside], SPECK * regions.size)
            regions[inside] = np.where(found, found + regions.max(), 0)
        return distances, regions

    def _regions_of_tile(
        self, pixels: NDArray[np.uint8], speck: float
    ) -> tuple[Distances, NDArray[np.int64]]:
        from scipy.ndimage import binary_fill_holes
        from skimage import color, filters, measure, morphology

        distances = background_distance(color.rgb2lab(pixels))
        found = filters.apply_hysteresis_threshold(distances, WEAK, STRONG)
        found = binary_fill_holes(morphology.closing(found, morphology.disk(1)))
        regions = measure.label(found, connectivity=1)
        sizes = np.bincount(regions.ravel())
        specks = sizes < speck
        specks[0] = False
        return distances, np.where(specks[regions], 0, regions)


def background_distance(lab: NDArray[np.float64]) -> Distances:
    """(H, W, 3) in CIELAB -> (H, W), the distance of each pixel from the fitted background."""
    height, width, _ = lab.shape
    pixels = lab.reshape(-1, 3)
    bins = np.round((pixels + np.array([0, 128, 128])) / 4).astype(np.int64) @ (1 << 16, 1 << 8, 1)
    commonest = pixels[bins == np.bincount(bins).argmax()].mean(axis=0)
    rows, columns = np.mgrid[:height, :width].reshape(2, -1) / max(height, width)
    plane = np.stack([np.ones_like(rows), rows, columns], axis=1)
    fitted = np.broadcast_to(commonest, pixels.shape)
    for _ in range(FITS):
        near = np.linalg.norm(pixels - fitted, axis=1) < NEAR
        fitted = plane @ np.linalg.lstsq(plane[near], pixels[near], rcond=None)[0]
    distances: Distances = np.linalg.norm(pixels - fitted, axis=1).reshape(height, width)
    return distances


class PlainBackgroundDetector(_PlainBackground):
    """Every region that is not background; its score rises from 0.5 with its mean distance to 1."""

    def detect(self, pictures: Sequence[Image.Image], names: Sequence[str]) -> list[list[Detection]]:
        """Return boxes around the regions, whatever the names are."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Image.Image) -> list[Detection]:
        from skimage import measure

        distances, regions = self._regions(picture)
        found = []
        for region in measure.regionprops(regions, intensity_image=distances):
            top, left, bottom, right = region.bbox
            mean = float(region.intensity_mean)
            found.append(Detection(Box(left, top, right, bottom), mean / (mean + WEAK)))
        return found


class PlainBackgroundSegmenter(_PlainBackground):
    """In each box, the region that has the most pixels there."""

    def segment(self, pictures: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]) -> list[list[Mask]]:
        """Return masks of whole regions, cut off at the box; empty where a box holds background only."""
        made = []
        for picture, own in zip(pictures, boxes, strict=True):
            _, regions = self._regions(picture)
            made.append([_inside(regions, box) for box in own])
        return made


def make_detector(settings: PlainSettings, device: str) -> PlainBackgroundDetector:
    """Return the detector as `models_config` makes models."""
    return PlainBackgroundDetector()


def make_segmenter(settings: PlainSettings, device: str) -> PlainBackgroundSegmenter:
    """Return the segmenter as `models_config` makes models."""
    return PlainBackgroundSegmenter()


def _inside(regions: NDArray[np.int64], box: Box) -> Mask:
    window = np.s_[int(box.top) : int(np.ceil(box.bottom)), int(box.left) : int(np.ceil(box.right))]
    counts = np.bincount(regions[window].ravel(), minlength=2)
    counts[0] = 0
    mask = np.zeros(regions.shape, dtype=bool)
    if counts.any():
        mask[window] = regions[window] == counts.argmax()
    return mask
