"""What a call of the pipeline is given: captions, pictures, generators and sizes, checked, as plain lists.

Letters: R references; T targets; C, H, W a latent's channels, height, width; elsewhere H, W pixels.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.guidance import Guidance
from jedi_diffusion.joint.process import Diffusion, Scheduler, process_of
from jedi_diffusion.joint.record import AttentionRecord
from jedi_diffusion.joint.references import EncodedReferences
from jedi_diffusion.options import MAX_PROMPT, Coupling, NullSet, check_range
from jedi_diffusion.parts import setting
from jedi_diffusion.pictures import to_rgb
from jedi_diffusion.randomness import spawn_generators
from jedi_diffusion.sets import Conditions, select_rows
from jedi_diffusion.visibility import Visibility

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = MAX_PROMPT
"""Characters of dropped text that a warning quotes: all of any prompt but one that comes from Python."""
WORD = re.compile(r"[^\W_]+")
"""What a model with a closed vocabulary takes for a word."""

TOKENIZING = threading.Lock()
"""Tokenizers of one pipeline serve calls in many threads, but keep the padding of a call while it lasts."""

Caption = str | tuple[str, ...]
"""A text, or in its place one for each text encoder."""
Picture = Image.Image | NDArray[np.uint8] | Tensor


@dataclass(frozen=True)
class Texts:
    """Captions, or in their place what a text encoder has made of them: `text` (B, K, D), and `pooled_text`
    (B, P) where the family has it. `captions` is empty then.
    """

    captions: list[Caption]
    embedded: Conditions | None = None

    @property
    def count(self) -> int:
        return len(self.captions) if self.embedded is None else len(self.embedded["text"])

    @property
    def matter(self) -> bool:
        """Whether any of them is more than the empty caption."""
        return self.embedded is not None or any(text for each in self.captions for text in texts_of(each))

    def rows(self, numbers: Sequence[int]) -> Texts:
        """Return those with these numbers, in this order, repeats allowed."""
        if self.embedded is None:
            return Texts([self.captions[number] for number in numbers])
        return Texts([], select_rows(self.embedded, numbers))


@dataclass(frozen=True)
class Request:
    """One text and one generator a target, one caption a reference.

    negatives: what the targets are guided away from, a text each; None for the empty caption. text_tokens:
    what captions are cut at, None for the family's own. embedded_guidance: what a model that takes guidance
    as an input is told of targets, None for the model's own. encoded: references in the place of pixels.

    size: height and width of the targets in pixels. pixels: the references in [-1, 1], (3, H, W) each.

    visibility: what is read of each reference.
    scheduler: a copy of the pipeline's, set to the steps of this call. temperature: scales the first noise.
    latents: the targets' first noise (T, C, H, W), None to draw it.
    """

    texts: Texts
    captions: list[str]
    size: tuple[int, int]
    pixels: list[Tensor]
    guidance: Guidance
    scheduler: Scheduler
    generators: list[torch.Generator]
    coupling: Coupling
    null_set: NullSet
    joint_targets: bool
    temperature: float = 1.0
    latents: Tensor | None = None
    attention_record: AttentionRecord | None = None
    references_start: float = 0.0
    references_stop: float = 1.0
    coupled_layers: frozenset[str] | None = None
    visibility: list[Visibility | None] = field(default_factory=list)
    negatives: Texts | None = None
    text_tokens: int | None = None
    embedded_guidance: float | None = None
    encoded: EncodedReferences | None = None

    @property
    def references(self) -> int:
        """R."""
        return len(self.pixels) if self.encoded is None else len(self.encoded)

    @property
    def groups(self) -> list[list[int]]:
        """Numbers of the targets of each set: one a set, or all in one (settled question 7)."""
        targets = range(self.texts.count)
        return [list(targets)] if self.joint_targets else [[number] for number in targets]

    @property
    def rows(self) -> list[int]:
        """Which of the references, and after them of the targets, each image of the batch is."""
        count = len(self.pixels)
        return [
            row for group in self.groups for row in (*range(count), *(count + number for number in group))
        ]


def read_texts(
    name: str,
    captions: str | Sequence[str] | None,
    embeds: Tensor | None,
    pooled: Tensor | None,
    examples: Conditions,
    others: Sequence[str | Sequence[str] | None] = (),
    encoders: int = 1,
) -> Texts | None:
    """Return captions or their embeddings, None where neither is given.

    name: "prompt" or "negative_prompt"; embeds (B, K, D), pooled (B, P): in their place. examples: conditions
    of the shapes that the network reads. others: what the second and the third of so many text encoders read
    in place of the captions. Raises UsageError for both, and for embeddings of other shapes.
    """
    own = {f"{name}_{number}": each for number, each in enumerate(others, start=2) if each is not None}
    for called in own:
        if captions is None:
            raise UsageError(f"{called} goes with {name}, which is not given.")
        if int(called[-1]) > encoders:
            said = "one text encoder" if encoders == 1 else f"{encoders} text encoders"
            raise UsageError(
                f"{called} is for another text encoder, but this model has {said}: leave it out."
            )
    prefix = name.removesuffix("prompt")
    given = {f"{prefix}prompt_embeds": embeds, f"{prefix}pooled_prompt_embeds": pooled}
    if embeds is None:
        if pooled is not None:
            raise UsageError(f"{prefix}pooled_prompt_embeds needs {prefix}prompt_embeds beside it.")
        if captions is None:
            return None
        return Texts(_one_each_encoder(name, captions, own, encoders))
    if captions is not None:
        raise UsageError(f"Both {name} and {prefix}prompt_embeds are given; give one of them.")
    embedded: Conditions = {}
    for (called, value), kind in zip(given.items(), ("text", "pooled_text"), strict=True):
        if kind not in examples:
            if value is not None:
                raise UsageError(f"This model reads no pooled text: leave {called} out.")
            continue
        if value is None:
            raise UsageError(f"This model reads pooled text too: give {called} beside {prefix}prompt_embeds.")
        width, dimensions = examples[kind].shape[-1], examples[kind].ndim
        if value.ndim != dimensions or value.shape[-1] != width or len(value) != len(embeds):
            expected = "(prompts, tokens, {})" if kind == "text" else "(prompts, {})"
            raise UsageError(
                f"{called} has the shape {tuple(value.shape)}, but must have {expected.format(width)}."
            )
        if not bool(torch.isfinite(value).all()):
            raise UsageError(f"{called} holds NaN or infinity.")
        embedded[kind] = value
    return Texts([], embedded)


def _one_each_encoder(
    name: str, captions: str | Sequence[str], others: Mapping[str, str | Sequence[str]], encoders: int
) -> list[Caption]:
    """Return captions, with what other text encoders read of each where that is something else."""
    first = [captions] if isinstance(captions, str) else list(captions)
    for text in first:
        check_prompt(text)
    read = [first] * encoders
    for called, given in others.items():
        texts = [given] * len(first) if isinstance(given, str) else list(given)
        if len(texts) != len(first):
            raise UsageError(
                f"There are {len(texts)} of {called} for {len(first)} of {name}; give one each, or one."
            )
        read[int(called[-1]) - 1] = [text or usual for text, usual in zip(texts, first, strict=True)]
    return list(zip(*read, strict=True)) if others else list(first)


def texts_of(caption: Caption) -> tuple[str, ...]:
    """Return what all text encoders together read of a caption."""
    return (caption,) if isinstance(caption, str) else caption


def read_by(encoder: int, captions: Sequence[Caption]) -> list[str]:
    """Return what text encoder number `encoder`, from 0, reads of captions."""
    return [each if isinstance(each, str) else each[encoder] for each in captions]


def checked_schedule(
    scheduler: Scheduler,
    sigmas: Sequence[float] | None,
    timesteps: Sequence[float] | None,
    steps: int | None,
) -> dict[str, list[float]]:
    """Return the steps that a call spells out, by diffusers' name for them; empty where it does not.

    Raises UsageError for both, another count than `steps`, numbers that do not fall, and a scheduler that
    does not take them.
    """
    named = {"sigmas": sigmas, "timesteps": timesteps}
    given = {name: [float(each) for each in value] for name, value in named.items() if value is not None}
    if len(given) > 1:
        raise UsageError("Both sigmas and timesteps are given; give one of them.")
    for name, values in given.items():
        kind = type(scheduler).__name__
        if name == "timesteps" and not isinstance(process_of(scheduler), Diffusion):
            raise UsageError("The steps of a flow are spelled out as sigmas; give these, not timesteps.")
        if name not in inspect.signature(scheduler.set_timesteps).parameters:
            raise UsageError(f"{kind} takes no {name}: leave them out, or take another scheduler.")
        falling = all(a > b for a, b in pairwise(values))
        if not values or not all(map(math.isfinite, values)) or not falling or values[-1] < 0:
            raise UsageError(f"{name} must be numbers from 0 on, each smaller than the one before it.")
        if steps is not None and steps != len(values):
            raise UsageError(
                f"num_inference_steps is {steps}, but {len(values)} {name} are given; leave it out."
            )
    return given


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise UsageError unless the value is one of the choices."""
    if value not in choices:
        *most, last = map(repr, choices)
        raise UsageError(f"{name} is {value!r}, but must be {', '.join(most)} or {last}.")


def checked_count(name: str, value: int, most: int | None = None) -> int:
    """Return the value, if it is a whole number from 1 to `most`. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most and value > most):
        raise UsageError(
            f"{name} must be a whole number {f'from 1 to {most}' if most else 'above 0'}, not {value}."
        )
    return value


def checked_temperature(value: float) -> float:
    """Return the value, if it is a number from 0 to 1. Raises UsageError."""
    check_range("temperature", value, 0, 1)
    return value


def check_recordable(references: int, guidance: Guidance) -> None:
    """Raise UsageError unless there are references, and the last branch of guidance sees them."""
    if not references:
        raise UsageError(
            "Without a reference there is nothing for attention to look at; give at least one to record it."
        )
    if not guidance.branches[-1].pictures:
        raise UsageError(
            "With these scales of guidance no pass sees the references, so there is no attention to record; "
            "take a scale above 0."
        )


def check_encoded(coupling: Coupling) -> None:
    """Raise UsageError for a call that encoded references cannot serve."""
    if coupling != "cached":
        raise UsageError(
            "Encoded references are those of coupling 'cached'; in 'joint' every step runs them anew: give "
            "the pictures."
        )


def one_negative_each(negatives: Texts, prompts: int) -> Texts:
    """Return one negative text a prompt: those given, or one for all. Raises UsageError on a mismatch."""
    if negatives.count not in (1, prompts):
        raise UsageError(
            f"There are {negatives.count} negative prompts for {prompts} prompts; give one each, or one."
        )
    return negatives.rows([0] * prompts) if negatives.count == 1 else negatives


def check_text_inputs(
    tokens: int | None, most_tokens: int | None, guidance: float | None, own_guidance: float | None
) -> None:
    """Raise UsageError for `max_sequence_length` and `embedded_guidance` that a model does not take: the
    former has at most `most_tokens`, None for none, and only one with `own_guidance` takes the latter.
    """
    if tokens is not None:
        if most_tokens is None:
            raise UsageError("Captions of this model have a fixed length: leave max_sequence_length out.")
        checked_count("max_sequence_length", tokens, most_tokens)
    if guidance is not None:
        if own_guidance is None:
            raise UsageError("This model takes no guidance as an input: leave embedded_guidance out.")
        check_range("embedded_guidance", guidance, 0, 100)


def check_same_length(given: Conditions, encoded: Conditions) -> None:
    """Raise UsageError where embeddings that were given have another number of tokens than captions that
    were encoded beside them."""
    if encoded and given["text"].shape[1] != encoded["text"].shape[1]:
        raise UsageError(
            f"Prompts are embedded in {given['text'].shape[1]} tokens, but other captions of the call in "
            f"{encoded['text'].shape[1]}: give embeddings of one length (max_sequence_length sets it)."
        )


def one_generator_each(
    generator: torch.Generator | Sequence[torch.Generator] | None, pictures: int
) -> list[torch.Generator]:
    """Return one generator a picture: the given ones, or a single one and its children (`family_of`), or
    children of a seed from torch's global state (None).

    Raises UsageError for another count.
    """
    if generator is None:
        return spawn_generators(int(torch.randint(2**63 - 1, ())), pictures)
    if isinstance(generator, torch.Generator):
        return family_of(generator, pictures)
    if len(generator) != pictures:
        raise UsageError(
            f"There are {len(generator)} generators for {pictures} pictures; give one each, or one."
        )
    return list(generator)


def family_of(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """Return the generator itself, then children of the state that it has now, which stays as it is.

    As everywhere in diffusers, the first picture draws from the generator that was given, so that it is the
    one that a list of it alone gives, and the next call goes on where this one ended. Unlike there, picture
    k does not depend on how much is drawn for those before it.
    """
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    seed = int(torch.randint(2**63 - 1, (), generator=twin, device=twin.device))
    return [generator, *spawn_generators(seed, count - 1, twin.device)]


def check_latents(latents: Tensor, shape: tuple[int, ...]) -> None:
    """Raise UsageError for first latents of another shape, or that hold NaN or infinity."""
    if tuple(latents.shape) != shape:
        raise UsageError(f"latents have the shape {tuple(latents.shape)}, but must have {shape}.")
    if not bool(torch.isfinite(latents).all()):
        raise UsageError("latents hold NaN or infinity.")


def check_tensor_inputs(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise UsageError for a tensor that callbacks cannot have."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"callback_on_step_end_tensor_inputs names {unknown[0]!r}; callbacks get {' and '.join(known)}."
        )


def fresh_scheduler(
    scheduler: Scheduler, steps: int, set_timesteps: Callable[[Scheduler], None]
) -> Scheduler:
    """Return a copy of the scheduler, set to `steps` steps: a call leaves no state behind.

    Raises UsageError.
    """
    trained = setting(scheduler.config, "num_train_timesteps", int)
    checked_count("num_inference_steps", steps, trained)
    scheduler = copy.deepcopy(scheduler)
    try:
        set_timesteps(scheduler)
    except ValueError as error:
        raise UsageError(f"{type(scheduler).__name__} cannot sample in {steps} steps: {error}") from error
    last = trained - isinstance(process_of(scheduler), Diffusion)
    if float(scheduler.timesteps.max()) > last:  # an offset moves the first of very many steps there
        raise UsageError(f"{type(scheduler).__name__} cannot sample in {steps} steps; take fewer.")
    return scheduler


def picture_size(
    height: int | None,
    width: int | None,
    own: tuple[int | None, int | None],
    factor: int,
    multiple: int = 1,
) -> tuple[int, int]:
    """Return height and width in pixels, by default the network's own.

    own: that in latents; None where the network does not say; factor: pixels a latent; multiple: what sides
    in latents are multiples of. Raises UsageError for other sides.
    """
    rows, columns = own
    sides = []
    for name, side, latents in (("height", height, rows), ("width", width, columns)):
        if side is None:
            if latents is None:
                raise UsageError(f"This model's network states no size of its own; give the {name}.")
            side = latents * factor
        pixels = checked_count(name, side)
        if pixels % (factor * multiple):
            raise UsageError(f"{name} must be a multiple of {factor * multiple} pixels, not {pixels}.")
        sides.append(pixels)
    return sides[0], sides[1]


def check_prompt(prompt: str) -> None:
    """Raise UsageError for a prompt that is not text: another type, NUL characters, broken Unicode."""
    if not isinstance(prompt, str):
        raise UsageError(f"A prompt must be a string, not {type(prompt).__name__}.")
    if "\0" in prompt:
        raise UsageError(f"A prompt holds a NUL character at position {prompt.index(chr(0))}; remove it.")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"A prompt holds broken Unicode at position {error.start}; remove it.") from error


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


def read_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> PromptReading:
    """Return a prompt as a model with this tokenizer reads it.

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


def _characters_read(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Return how much of a text fits the tokenizer's length.

    Changes no setting of it: others may be using it.
    """
    most = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    with TOKENIZING:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    places = encoded.offset_mapping
    return len(text) if len(places) <= most else places[most - 1][1]


def known_text(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """`PromptReading.text` of a prompt."""
    return read_prompt(tokenizer, prompt).text


@dataclass(frozen=True)
class PromptReader:
    """What the tokenizers of a model leave out of prompts, for people. Holds no more than copies of them, so
    that it can be asked from other threads, and sent to other processes."""

    tokenizers: tuple[PreTrainedTokenizerBase, ...]

    @classmethod
    def of(cls, *tokenizers: PreTrainedTokenizerBase | None) -> PromptReader:
        """Return a reader of copies; None among the tokenizers are left out."""
        return cls(tuple(copy.deepcopy(each) for each in tokenizers if each is not None))

    def unknown_words(self, prompts: Sequence[str]) -> list[str]:
        """Return the words that the model does not know and ignores, each once, in lower case."""
        words = [word for prompt in prompts for word in read_prompt(self.tokenizers[0], prompt).unknown]
        return list(dict.fromkeys(words))

    def tokens(self, prompts: Sequence[str]) -> int:
        """Return tokens that the first text encoder reads of all prompts together, those of its own
        included.
        """
        tokenizer = self.tokenizers[0]
        own, most = tokenizer.num_special_tokens_to_add(), tokenizer.model_max_length
        texts = [read_prompt(tokenizer, prompt).text for prompt in prompts]
        read = [tokenizer(text, add_special_tokens=False, verbose=False).input_ids for text in texts]
        return sum(min(len(ids) + own, most) for ids in read)

    def cut_off(self, prompts: Sequence[str]) -> list[str]:
        """Return a sentence for each prompt that is too long; it quotes all that is dropped."""
        read = ((each, read_prompt(each, prompt)) for prompt in prompts for each in self.tokenizers)
        return list(dict.fromkeys(cut_off_said(each, reading) for each, reading in read if reading.dropped))


def cut_off_said(tokenizer: PreTrainedTokenizerBase, reading: PromptReading) -> str:
    dropped = reading.dropped
    shown = repr(dropped) if len(dropped) <= SHOWN else f"{dropped[:SHOWN]!r}..."
    return (
        f"The prompt exceeds the {tokenizer.model_max_length} tokens that the model reads; its last "
        f"{len(dropped)} characters are dropped: {shown}."
    )


def to_pixels(pictures: Sequence[Picture], height: int, width: int) -> Tensor:
    """Return references as (R, 3, H, W) float32 in [-1, 1]: the centre of each, cut to the shape and resized.

    Accepts Pillow pictures of any mode, 8-bit arrays (H, W, 3), and tensors (3, H, W) in 0..1.
    Raises UsageError that names the reference's number for anything else.
    """
    rows = [_to_unit(picture, number, height, width) for number, picture in enumerate(pictures, start=1)]
    return torch.stack(rows) * 2 - 1 if rows else torch.zeros(0, 3, height, width)


def _to_unit(picture: Picture, number: int, height: int, width: int) -> Tensor:
    """Return one reference as (3, H, W) in 0..1."""
    if isinstance(picture, Tensor):
        return _fit_tensor(picture, number, height, width)
    fitted = ImageOps.fit(to_image(picture, number), (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1) / 255


def to_image(picture: Picture, number: int) -> Image.Image:
    """Return reference `number` upright in RGB, in its own size; a tensor in 8 bits.

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
