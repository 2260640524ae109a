"""CLIP: how alike two pictures are, and how well a text fits a picture (sections 3.1 and 4 of the paper).

Letters: B pictures or texts of a batch; D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPModel

from jedi_diffusion.devices import in_batches
from jedi_diffusion.vision.features import BATCH, Preprocessing, Rows, exact, rows_of, unit_rows
from jedi_diffusion.vision.settings import SCORING_CLIP, ClipSettings
from jedi_diffusion.vision.transformer import TransformerModel

CLIP_PREPROCESSING = Preprocessing(
    224, 224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)


class Clip(TransformerModel):
    """CLIP's two towers, whose projected features are compared by their cosine."""

    def __init__(self, settings: ClipSettings, device: str, part: str) -> None:
        super().__init__(settings, device, part, {"clip"}, CLIPModel)

    def features(self, pixels: Tensor) -> Tensor:
        """Return (B, D) of preprocessed pictures (B, 3, side, side)."""
        found: Tensor = self.model.get_image_features(pixel_values=pixels).pooler_output
        return found


class ClipEmbedder(Clip):
    """An `ImageEmbedder` of the synthesis, preprocessed as the model's folder says."""

    def __init__(self, settings: ClipSettings, device: str) -> None:
        super().__init__(settings, device, "embedder")
        self._processor = self.image_processor()

    def embed(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return (B, D), each row of length 1."""
        rows = in_batches(
            [None] * len(pictures),
            self.batch_size,
            lambda batch: self._embed([pictures[place] for place in batch]),
        )
        return np.stack(rows) if rows else np.zeros((0, self.model.config.projection_dim), np.float32)

    def _embed(self, pictures: list[Image.Image]) -> list[NDArray[np.float32]]:
        pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
        with self.at_work():
            features = self.features(pixels.to(self.device, self.dtype)).float()
            unit = features / features.norm(dim=-1, keepdim=True)
        return list(unit.cpu().numpy())


class ClipEncoder(Clip):
    """The scorer's CLIP (ViT-B/32 in the paper), in float32 and as the field preprocesses for DreamBench.

    The preprocessing is fixed, not read from the folder, and resizes by Pillow. folder: of transformers, or
    a Hub id. Texts are the prompts as they are, cut at 77 tokens. Raises ModelError.
    """

    name = "clip"
    image_column = "CLIP-I"
    text_column = "CLIP-T"
    preprocessing = CLIP_PREPROCESSING

    def __init__(self, folder: str | Path = SCORING_CLIP, device: str = "cpu") -> None:
        super().__init__(ClipSettings.model_validate({"model": str(folder)}), device, "encoder")
        self.fingerprint += f" {self.preprocessing}"
        self.words = self.tokenizer()

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        """Return (B, D), each row of length 1."""
        return unit_rows(rows_of(pictures, self.preprocessing, self.features, self.device))

    def texts(self, texts: Sequence[str]) -> Rows:
        """Return (B, D), each row of length 1."""
        rows = []
        for start in range(0, len(texts), BATCH):
            words = self.words(
                list(texts[start : start + BATCH]),
                padding="max_length",
                truncation=True,
                max_length=self.model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.device)
            with exact():
                found = self.model.get_text_features(
                    input_ids=words.input_ids, attention_mask=words.attention_mask
                )
            rows.append(found.pooler_output.cpu().numpy())
        return unit_rows(np.concatenate(rows))
