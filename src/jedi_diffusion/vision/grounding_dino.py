"""Grounding DINO, an open-vocabulary detector (section 6 of the paper).

Letters: B pictures of a batch; Q queries, each a box; T tokens of a name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from transformers import GroundingDinoForObjectDetection

from jedi_diffusion.devices import in_batches
from jedi_diffusion.vision.detection import Box, Detection
from jedi_diffusion.vision.settings import GroundingDinoSettings
from jedi_diffusion.vision.transformer import TransformerModel


class GroundingDinoDetector(TransformerModel):
    """`Detector` on Grounding DINO: a name is asked for as the phrase "name." in lower case."""

    def __init__(self, settings: GroundingDinoSettings, device: str) -> None:
        super().__init__(settings, device, "detector", {"grounding-dino"}, GroundingDinoForObjectDetection)
        self.settings = settings
        self._words = self.tokenizer()
        self._pictures = self.image_processor()
        stops = self._words.convert_tokens_to_ids([".", "?"])
        self._marks = torch.tensor([*self._words.all_special_ids, *stops])

    def detect(self, pictures: Sequence[Image.Image], names: Sequence[str]) -> list[list[Detection]]:
        """Return boxes whose score is above `box_threshold`, with a word of the name above `text_threshold`.

        A box's score is that of its best token. The surest come first, `max_boxes` at most; boxes of less
        than a pixel are left out.
        """
        # Pictures of one size only, so that none is padded: the backbone would see the border.
        return in_batches(
            [picture.size for picture in pictures],
            self.batch_size,
            lambda batch: self._detect(
                [pictures[place] for place in batch], [names[place] for place in batch]
            ),
        )

    def _detect(self, pictures: list[Image.Image], names: list[str]) -> list[list[Detection]]:
        texts = [phrase(name) for name in names]
        words = self._words(texts, padding=True, return_tensors="pt", return_token_type_ids=True)
        seen = self._pictures(images=pictures, return_tensors="pt")
        with self.at_work():
            outputs = self.model(**words.to(self.device), **seen.to(self.device))
        is_word = torch.isin(words["input_ids"].cpu(), self._marks, invert=True)
        chances = outputs.logits.cpu().sigmoid()[..., : is_word.shape[1]]
        return [
            self._read(chance, word, boxes, picture.size)
            for chance, word, boxes, picture in zip(
                chances, is_word, outputs.pred_boxes.cpu(), pictures, strict=True
            )
        ]

    def _read(
        self, chances: Tensor, is_word: Tensor, boxes: Tensor, size: tuple[int, int]
    ) -> list[Detection]:
        """chances: (Q, T); is_word: (T,); boxes: (Q, 4), center, width and height in parts of a side."""
        scores = chances.amax(dim=1)
        named = (chances[:, is_word] > self.settings.text_threshold).any(dim=1)
        center, half = boxes[:, :2], boxes[:, 2:] / 2
        corners = torch.cat([center - half, center + half], dim=1).clamp(0, 1) * torch.tensor([*size, *size])
        seen = (corners[:, 2:] - corners[:, :2] >= 1).all(dim=1)
        kept = (scores > self.settings.box_threshold) & named & seen
        found = [
            Detection(Box(*corner), score)
            for corner, score in zip(corners[kept].tolist(), scores[kept].tolist(), strict=True)
        ]
        return sorted(found, key=lambda each: -each.score)[: self.settings.max_boxes]


def phrase(name: str) -> str:
    """Return a name as Grounding DINO reads it: a full stop ends a phrase, so that none may stand inside."""
    return f"{' '.join(name.lower().replace('.', ' ').split())}."
