"""BLIP-2, a captioning model (section 6 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from transformers import Blip2ForConditionalGeneration

from jedi_diffusion.devices import in_batches
from jedi_diffusion.errors import ModelError
from jedi_diffusion.vision.settings import Blip2Settings
from jedi_diffusion.vision.transformer import TransformerModel


class Blip2Captioner(TransformerModel):
    """`Captioner` on BLIP-2. Beam search draws nothing at random, so that seeds do not change a caption.

    Raises ModelError for an old folder that does not say where the picture stands among the words.
    """

    def __init__(self, settings: Blip2Settings, device: str) -> None:
        super().__init__(settings, device, "captioner", {"blip-2"}, Blip2ForConditionalGeneration)
        self.settings = settings
        if self.model.config.image_token_index is None:
            raise ModelError(
                f"{self.model_name} has no image_token_index in its config.json: take a newer revision."
            )
        self._words = self.tokenizer()
        self._processor = self.image_processor()
        encoder_decoder = self.model.config.text_config.is_encoder_decoder
        # A decoder repeats what it was given: the picture's tokens and the start.
        self._given = 0 if encoder_decoder else self.model.config.num_query_tokens + 1

    def caption(self, pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[str]:
        """Return the likeliest sentence that the search finds about each of B RGB pictures."""
        return in_batches(
            [None] * len(pictures),
            self.batch_size,
            lambda batch: self._caption([pictures[place] for place in batch]),
        )

    def _caption(self, pictures: list[Image.Image]) -> list[str]:
        pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
        with self.at_work():
            found = self.model.generate(
                pixels.to(self.device, self.dtype),
                num_beams=self.settings.beams,
                max_new_tokens=self.settings.max_new_tokens,
                do_sample=False,
            )
        captions = self._words.batch_decode(found[:, self._given :], skip_special_tokens=True)
        return [caption.strip() for caption in captions]
