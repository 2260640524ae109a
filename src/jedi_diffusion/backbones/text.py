"""Captions as text encoders read them: CLIP's, alone or in pairs, and T5's.

Letters: B captions; K text tokens; D text features; P pooled text features.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jedi_diffusion.inputs import (
    SHOWN,
    TOKENIZING,
    Caption,
    check_prompt,
    cut_off_said,
    read_by,
    read_prompt,
    texts_of,
)
from jedi_diffusion.sets import Conditions, select_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextReader:
    """A pipeline's tokenizers and the text encoders that belong to them.

    zero_if_empty: an empty caption gives zeros, as SDXL's base model was trained. most_tokens: what captions
    are cut at, where the family leaves that open; None for its own number.
    """

    tokenizers: tuple[PreTrainedTokenizerBase, ...]
    encoders: tuple[PreTrainedModel, ...]
    zero_if_empty: bool = False
    most_tokens: int | None = None


def encode_text(prompts: Sequence[Caption], reader: TextReader, device: torch.device) -> Conditions:
    """Return captions as `text` (B, K, D) and, for SDXL, `pooled_text` (B, P).

    One encoder (SD 1.x, 2.x) gives its last hidden states, two (SDXL) their penultimate ones, joined. Each
    distinct caption runs once. What exceeds a tokenizer's length is dropped, and a warning quotes it.
    Raises UsageError for what `check_prompt` refuses.
    """
    distinct = distinct_captions(prompts)
    states, pooled = [], None
    for number, (tokenizer, encoder) in enumerate(zip(reader.tokenizers, reader.encoders, strict=True)):
        tokens = torch.cat([tokenize(tokenizer, text) for text in read_by(number, distinct)]).to(device)
        output = encoder(tokens, output_hidden_states=len(reader.encoders) > 1)
        if len(reader.encoders) == 1:
            states.append(output.last_hidden_state)
        else:
            states.append(output.hidden_states[-2])
            pooled = getattr(output, "text_embeds", pooled)
    made = {"text": torch.cat(states, dim=-1)}
    if pooled is not None:
        made["pooled_text"] = pooled
    if reader.zero_if_empty:
        keep = torch.tensor([any(texts_of(prompt)) for prompt in distinct], device=device)
        made = {name: value * keep.view(-1, *[1] * (value.ndim - 1)) for name, value in made.items()}
    return select_rows(made, [distinct.index(prompt) for prompt in prompts])


def distinct_captions(captions: Sequence[Caption]) -> list[Caption]:
    """Return each caption once, in order. Raises UsageError for what `check_prompt` refuses."""
    distinct = list(dict.fromkeys(captions))
    for text in (text for caption in distinct for text in texts_of(caption)):
        check_prompt(text)
    return distinct


def tokenize(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Tensor:
    """Return token ids (1, K), padded and cut to the tokenizer's length."""
    reading = read_prompt(tokenizer, prompt)
    if reading.dropped:
        logger.warning("%s", cut_off_said(tokenizer, reading))
    with TOKENIZING:
        ids: Tensor = tokenizer(
            reading.text,
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
    return ids


def encode_t5(
    tokenizer: PreTrainedTokenizerBase,
    encoder: PreTrainedModel,
    captions: Sequence[str],
    length: int,
    device: torch.device,
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
