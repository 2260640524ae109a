"""Prompts and pictures as the tensors that a joint model is conditioned on.

Letters: B captions; K text tokens; D text features; P pooled text features; R references; H, W pixels.
"""

from __future__ import annotations

import copy
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_diffusion.options import MAX_PROMPT
from jedi_diffusion.pictures import to_rgb
from jedi_diffusion.sets import Conditions, select_rows

logger = logging.getLogger(__name__)

SHOWN = MAX_PROMPT
"""Characters of dropped text that a warning quotes: all of any prompt but one that comes from Python."""
WORD = re.compile(r"[^\W_]+")
"""What a model with a closed vocabulary takes for a word."""

TOKENIZING = threading.Lock()
"""Tokenizers of one pipeline serve calls in many threads, but keep the padding of a call while it lasts."""

Picture = Image.Image | np.ndarray | Tensor


@contextmanager
def without_overflow(vae: Any) -> Iterator[None]:
    """SDXL's autoencoder overflows in half precision (`force_upcast`): full precision meanwhile."""
    dtype = vae.dtype
    upcast = dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if upcast:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if upcast:
            vae.to(dtype)


def check_prompt(prompt: str) -> None:
    """Raises UsageError for a prompt that is not text: another type, NUL characters, broken Unicode."""
    if not isinstance(prompt, str):
        raise UsageError(f"A prompt must be a string, not {type(prompt).__name__}.")
    if "\0" in prompt:
        raise UsageError(f"A prompt holds a NUL character at position {prompt.index(chr(0))}; remove it.")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"A prompt holds broken Unicode at position {error.start}; remove it.") from error


@dataclass(frozen=True)
class TextReader:
    """A pipeline's tokenizers and the text encoders that belong to them.

    zero_if_empty: an empty caption gives zeros, as SDXL's base model was trained.
    """

    tokenizers: tuple[Any, ...]
    encoders: tuple[Any, ...]
    zero_if_empty: bool = False


def encode_text(prompts: Sequence[str], reader: TextReader, device: torch.device) -> Conditions:
    """Return captions as `text` (B, K, D) and, for SDXL, `pooled_text` (B, P).

    One encoder (SD 1.x, 2.x) gives its last hidden states, two (SDXL) their penultimate ones, joined. Each
    distinct caption runs once. What exceeds a tokenizer's length is dropped, and a warning quotes it.
    Raises UsageError for what `check_prompt` refuses.
    """
    distinct = list(dict.fromkeys(prompts))
    for prompt in distinct:
        check_prompt(prompt)
    states, pooled = [], None
    for tokenizer, encoder in zip(reader.tokenizers, reader.encoders, strict=True):
        tokens = torch.cat([tokenize(tokenizer, prompt) for prompt in distinct]).to(device)
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
        keep = torch.tensor([bool(prompt) for prompt in distinct], device=device)
        made = {name: value * keep.view(-1, *[1] * (value.ndim - 1)) for name, value in made.items()}
    return select_rows(made, [distinct.index(prompt) for prompt in prompts])


def tokenize(tokenizer: Any, prompt: str) -> Tensor:
    """Token ids (1, K), padded and cut to the tokenizer's length."""
    reading = read_prompt(tokenizer, prompt)
    if reading.dropped:
        logger.warning("%s", _told(tokenizer, reading))
    with TOKENIZING:
        return tokenizer(
            reading.text,
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids


@dataclass(frozen=True)
class PromptReading:
    """What a model reads of a prompt.

    text: what is tokenized and then cut to the text encoder's length: of a closed vocabulary the words in it,
    else the prompt. unknown: the words left out, each once, in lower case. dropped: the end of the prompt, as
    it was written, that goes beyond the length.
    """

    text: str
    unknown: tuple[str, ...] = ()
    dropped: str = ""


def read_prompt(tokenizer: Any, prompt: str) -> PromptReading:
    """A prompt as a model with this tokenizer reads it.

    Only tokenizers that list their `whole_words` have a closed vocabulary. Words outside it are left out
    first, and what is left counts: pieces of unknown words have embeddings that were never trained, and noise
    in their place would disturb the rest.
    """
    vocabulary = tokenizer.init_kwargs.get("whole_words")
    if vocabulary is None:
        return PromptReading(prompt, dropped=prompt[_characters_read(tokenizer, prompt) :].strip())
    known = frozenset(vocabulary)
    words = [(found.start(), found.group().lower()) for found in WORD.finditer(prompt)]
    kept = [(start, word) for start, word in words if word in known]
    unknown = tuple(dict.fromkeys(word for _, word in words if word not in known))
    text = " ".join(word for _, word in kept)
    whole = text[: _characters_read(tokenizer, text)].count(" ") + 1
    return PromptReading(text, unknown, prompt[kept[whole][0] :].strip() if whole < len(kept) else "")


def _characters_read(tokenizer: Any, text: str) -> int:
    """How much of a text fits the tokenizer's length. Changes no setting of it: others may be using it."""
    most = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    with TOKENIZING:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    places = encoded.offset_mapping
    return len(text) if len(places) <= most else places[most - 1][1]


def known_text(tokenizer: Any, prompt: str) -> str:
    """`PromptReading.text` of a prompt."""
    return read_prompt(tokenizer, prompt).text


@dataclass(frozen=True)
class PromptReader:
    """What the tokenizers of a model leave out of prompts, for people. Holds no more than copies of them, so
    that it can be asked from other threads, and sent to other processes."""

    tokenizers: tuple[Any, ...]

    @classmethod
    def of(cls, *tokenizers: Any) -> PromptReader:
        """A reader of copies; None among the tokenizers are left out."""
        return cls(tuple(copy.deepcopy(each) for each in tokenizers if each is not None))

    def unknown_words(self, prompts: Sequence[str]) -> list[str]:
        """The words that the model leaves out, each once, in lower case."""
        words = [word for prompt in prompts for word in read_prompt(self.tokenizers[0], prompt).unknown]
        return list(dict.fromkeys(words))

    def tokens(self, prompts: Sequence[str]) -> int:
        """Tokens that the first text encoder reads of all prompts together, those of its own included."""
        tokenizer = self.tokenizers[0]
        own, most = tokenizer.num_special_tokens_to_add(), tokenizer.model_max_length
        texts = [read_prompt(tokenizer, prompt).text for prompt in prompts]
        read = [tokenizer(text, add_special_tokens=False, verbose=False).input_ids for text in texts]
        return sum(min(len(ids) + own, most) for ids in read)

    def cut_off(self, prompts: Sequence[str]) -> list[str]:
        """A sentence for each prompt that is too long; it quotes all that is dropped."""
        read = ((each, read_prompt(each, prompt)) for prompt in prompts for each in self.tokenizers)
        return list(dict.fromkeys(_told(each, reading) for each, reading in read if reading.dropped))


def _told(tokenizer: Any, reading: PromptReading) -> str:
    dropped = reading.dropped
    shown = repr(dropped) if len(dropped) <= SHOWN else f"{dropped[:SHOWN]!r}..."
    return (
        f"The prompt exceeds the {tokenizer.model_max_length} tokens that the model reads; its last "
        f"{len(dropped)} characters are dropped: {shown}."
    )


def to_pixels(pictures: Sequence[Picture], height: int, width: int) -> Tensor:
    """References as (R, 3, H, W) float32 in [-1, 1]: the centre of each, cut to the shape and resized.

    Accepts Pillow pictures of any mode, 8-bit arrays (H, W, 3), and tensors (3, H, W) in 0..1.
    Raises UsageError that names the reference's number for anything else.
    """
    rows = [_to_unit(picture, number, height, width) for number, picture in enumerate(pictures, start=1)]
    return torch.stack(rows) * 2 - 1 if rows else torch.zeros(0, 3, height, width)


def _to_unit(picture: Picture, number: int, height: int, width: int) -> Tensor:
    """One reference as (3, H, W) in 0..1."""
    if isinstance(picture, Tensor):
        return _fit_tensor(picture, number, height, width)
    fitted = ImageOps.fit(to_image(picture, number), (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1) / 255


def to_image(picture: Picture, number: int) -> Image.Image:
    """Reference `number` upright in RGB, in its own size; a tensor in 8 bits.

    Raises UsageError as `to_pixels` does.
    """
    if isinstance(picture, Tensor):
        _check_tensor(picture, number)
        picture = (picture.detach().float().cpu() * 255).round().byte().permute(1, 2, 0).numpy()
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise UsageError(
                f"Reference {number} is an array of {picture.dtype} and shape {picture.shape}; "
                "arrays must be uint8 of shape (height, width, 3)."
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise UsageError(
            f"Reference {number} is a {type(picture).__name__}, not a Pillow picture, an array or a tensor."
        )
    return to_rgb(ImageOps.exif_transpose(picture))


def _check_tensor(picture: Tensor, number: int) -> None:
    if picture.ndim != 3 or picture.shape[0] != 3 or not picture.is_floating_point():
        raise UsageError(
            f"Reference {number} is a tensor of {picture.dtype} and shape {tuple(picture.shape)}; "
            "tensors must be floating-point of shape (3, height, width)."
        )
    if not bool(((picture >= 0) & (picture <= 1)).all()):
        raise UsageError(f"Reference {number} holds values outside 0..1; tensors must be in that range.")


def _fit_tensor(picture: Tensor, number: int, height: int, width: int) -> Tensor:
    _check_tensor(picture, number)
    rows, columns = picture.shape[1:]
    scale = min(rows / height, columns / width)
    crop_rows, crop_columns = round(height * scale), round(width * scale)
    top, left = (rows - crop_rows) // 2, (columns - crop_columns) // 2
    crop = picture.detach().float().cpu()[None, :, top : top + crop_rows, left : left + crop_columns]
    if crop.shape[2:] != (height, width):
        crop = F.interpolate(crop, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    return crop[0]
