"""CLIP, whose image embeddings say how alike two pictures are (section 3.1 of the paper).

Letters: B pictures of a batch; D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPModel

from jedi_diffusion.devices import in_batches
from jedi_diffusion.synthesis.adapters.settings import ClipSettings
from jedi_diffusion.synthesis.adapters.transformer import TransformerModel


class ClipEmbedder(TransformerModel):
    """`ImageEmbedder` on CLIP's image encoder."""

    def __init__(self, settings: ClipSettings, device: str) -> None:
        super().__init__(settings, device, "embedder", {"clip"}, CLIPModel)
        self._processor = self.image_processor()

    def embed(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(B, D), each row of length 1."""
        rows = in_batches(
            [None] * len(pictures),
            self.batch_size,
            lambda batch: self._embed([pictures[place] for place in batch]),
        )
        return np.stack(rows) if rows else np.zeros((0, self.model.config.projection_dim), np.float32)

    def _embed(self, pictures: list[Image.Image]) -> list[NDArray[np.float32]]:
        pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
        with self.at_work():
            features = self.model.get_image_features(pixels.to(self.device, self.dtype)).pooler_output.float()
            unit = features / features.norm(dim=-1, keepdim=True)
        return list(unit.cpu().numpy())
