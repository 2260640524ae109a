"""DINO, which says how alike the subjects of two pictures are (section 4 of the paper).

Letters: B pictures; D numbers of a class token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor
from transformers import ViTModel

from jedi_diffusion.vision.features import Preprocessing, Rows, rows_of, unit_rows
from jedi_diffusion.vision.settings import SCORING_DINO, DinoSettings
from jedi_diffusion.vision.transformer import TransformerModel

DINO_PREPROCESSING = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class DinoEncoder(TransformerModel):
    """The scorer's DINO (ViT-S/16 in the paper): the final class token, brought to length 1, in float32.

    The preprocessing is fixed: transformers' own for DINO resizes without the crop. folder: a transformers
    folder, or a Hub id. Weights of DINOv2 or of patch size 8 give other numbers, which do not compare. Raises
    ModelError.
    """

    name = "dino"
    image_column = "DINO"
    preprocessing = DINO_PREPROCESSING

    def __init__(self, folder: str | Path = SCORING_DINO, device: str = "cpu") -> None:
        super().__init__(
            DinoSettings.model_validate({"model": str(folder)}),
            device,
            "encoder",
            {"vit"},
            ViTModel,
            add_pooling_layer=False,
        )
        self.fingerprint += f" {self.preprocessing}"

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        """Return (B, D), each row of length 1."""
        return unit_rows(rows_of(pictures, self.preprocessing, self._tokens, self.device))

    def _tokens(self, pixels: Tensor) -> Tensor:
        """Return (B, D) of preprocessed pictures (B, 3, side, side)."""
        found: Tensor = self.model(pixel_values=pixels).last_hidden_state[:, 0]
        return found
