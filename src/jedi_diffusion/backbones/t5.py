"""Captions as T5 reads them, for the families that have it beside CLIP (FLUX.1, SD3)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from jedi_diffusion.conditioning import SHOWN, TOKENIZING

logger = logging.getLogger(__name__)


def encode_t5(
    tokenizer: Any, encoder: Any, captions: Sequence[str], length: int, device: torch.device
) -> torch.Tensor:
    """Return the last hidden states of captions, padded to `length` tokens, (B, length, D).

    The models read what pads a caption too. What exceeds the length is dropped, with a warning.
    """
    with TOKENIZING:
        counts = [len(numbers) for numbers in tokenizer(list(captions)).input_ids]
        tokens = tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
    for caption, count in zip(captions, counts, strict=True):
        if count > length:
            logger.warning(
                "The prompt exceeds the %d tokens that T5 reads by %d; its end is dropped: %r.",
                length,
                count - length,
                caption[-SHOWN:],
            )
    states: torch.Tensor = encoder(tokens.input_ids.to(device))[0]
    return states
