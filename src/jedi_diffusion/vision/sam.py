"""SAM, which segments what is inside a box (section 6 of the paper).

Letters: K boxes in a picture; R choices of a mask for each box; W, H a picture's width and height in pixels;
h, w the size of SAM's own masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import SamModel, SamProcessor

from jedi_diffusion.devices import in_batches
from jedi_diffusion.vision.detection import Box, Mask
from jedi_diffusion.vision.settings import SamSettings
from jedi_diffusion.vision.transformer import TransformerModel


class SamSegmenter(TransformerModel):
    """`Segmenter` on SAM: of the masks that it offers for a box, the one whose IoU it predicts highest."""

    def __init__(self, settings: SamSettings, device: str) -> None:
        super().__init__(settings, device, "segmenter", {"sam"}, SamModel)
        self.settings = settings
        make: Any = SamProcessor
        self._processor = make(self.image_processor())

    def segment(self, pictures: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]) -> list[list[Mask]]:
        """Return a mask (H, W) for each box.

        A picture is encoded once for all of its boxes, not at all for none.
        """
        return in_batches(
            [bool(each) for each in boxes],
            self.batch_size,
            lambda batch: self._segment(
                [pictures[place] for place in batch], [boxes[place] for place in batch]
            ),
        )

    def _segment(self, pictures: list[Image.Image], boxes: list[Sequence[Box]]) -> list[list[Mask]]:
        if not boxes[0]:
            return [[] for _ in boxes]
        seen = self._processor.image_processor(pictures, return_tensors="pt")
        with self.at_work():
            embeddings = self.model.get_image_embeddings(seen["pixel_values"].to(self.device))
            return [
                self._masks(embedding[None], each, tuple(original), tuple(scaled))
                for embedding, each, original, scaled in zip(
                    embeddings,
                    boxes,
                    seen["original_sizes"].tolist(),
                    seen["reshaped_input_sizes"].tolist(),
                    strict=True,
                )
            ]

    def _masks(
        self,
        embedding: torch.Tensor,
        boxes: Sequence[Box],
        original: tuple[int, int],
        scaled: tuple[int, int],
    ) -> list[Mask]:
        """Of one picture; original and scaled: its (height, width) and that in SAM's square."""
        height, width = scaled[0] / original[0], scaled[1] / original[1]
        corners = torch.tensor(
            [
                [each.left * width, each.top * height, each.right * width, each.bottom * height]
                for each in boxes
            ]
        )
        masks: list[Mask] = []
        for part in torch.split(corners, self.settings.box_batch):
            found = self.model(
                image_embeddings=embedding,
                input_boxes=part[None].to(self.device),
                multimask_output=True,
            )
            chosen = best_masks(found.pred_masks[0], found.iou_scores[0])
            (whole,) = self._processor.post_process_masks([chosen], [original], [scaled])
            masks += list(whole[:, 0].cpu().numpy())
        return masks


def best_masks(masks: torch.Tensor, scores: torch.Tensor) -> Any:
    """masks: (K, R, h, w); scores: (K, R) -> (K, 1, h, w), the mask of the highest score for each box."""
    return masks[torch.arange(len(masks), device=masks.device), scores.argmax(dim=1)][:, None]
