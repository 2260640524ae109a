"""A name for one subject in prompts, and new words for tokenizers and text encoders, taken out exactly.

Letters: B captions; K text tokens; D text features.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager as Context
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from jedi_diffusion.conditioning import known_text
from jedi_diffusion.errors import UsageError

ARTICLES = ("a ", "an ", "the ")
WORD = re.compile(r"[a-z0-9]+")


def noun_of(caption: str) -> str:
    """A caption without its article: "a stuffed animal" gives "stuffed animal"."""
    article = next((each for each in ARTICLES if caption.lower().startswith(each)), "")
    return caption[len(article) :].strip()


def rename(prompt: str, noun: str, name: str) -> str:
    """The prompt with the first `noun`, as whole words and in any case, replaced; else the name in front."""
    if noun:
        changed, found = re.subn(
            rf"(?<!\w){re.escape(noun)}(?!\w)", lambda _: name, prompt, count=1, flags=re.IGNORECASE
        )
        if found:
            return changed
    return f"{name}, {prompt}" if prompt else name


def knows(tokenizer: Any, word: str) -> bool:
    """Whether a tokenizer reads the word at all: one of a closed vocabulary may leave it out."""
    return known_text(tokenizer, word) == word


@dataclass(frozen=True)
class NamedSubject:
    """How DreamBooth and its kin call a subject: a word that means little to the model, before the class."""

    name: str = "sks"

    def captions(self, noun: str) -> Sequence[str]:
        """What the references are called while fitting."""
        return (f"a {self.name} {noun}",)

    def prompt(self, text: str, noun: str) -> str:
        """A prompt with the word before the class."""
        return rename(text, noun, f"{self.name} {noun}")


def identifier(pipeline: Any, word: str, random: torch.Generator) -> Context[dict[str, nn.Parameter]]:
    """The word as it is where the model reads any text; in a closed vocabulary a new one, not trained.

    Its row is drawn at random then, as a rare word's would be. Raises UsageError for a word that is not small
    letters and digits.
    """
    _check(word)
    if knows(pipeline.tokenizer, word):
        return nullcontext({})
    return new_word(pipeline, word, "", random)


@contextmanager
def new_word(
    pipeline: Any, word: str, like: str, random: torch.Generator
) -> Iterator[dict[str, nn.Parameter]]:
    """Meanwhile `word` is one token of its own to every text encoder; yields its rows, (1, D) each, by name.

    A row starts as the mean of those of the words `like`; where the model reads none of them, at random, with
    the mean and deviation of the table. Tables and tokenizers themselves stay as they are. Raises UsageError
    for a word that is not small letters and digits, or is a token already.
    """
    _check(word)
    rows = {}
    with ExitStack() as stack:
        for ending in ("", "_2"):
            tokenizer = getattr(pipeline, f"tokenizer{ending}")
            encoder = getattr(pipeline, f"text_encoder{ending}")
            if tokenizer is None or encoder is None:
                continue
            longer = _with_word(tokenizer, word)
            table = encoder.get_input_embeddings()
            row = nn.Parameter(_first_row(tokenizer, table, like, random))
            number = longer.convert_tokens_to_ids(word)
            stack.enter_context(_longer_table(encoder, _LongerTable(table, row, number), tokenizer))
            stack.callback(setattr, pipeline, f"tokenizer{ending}", tokenizer)
            setattr(pipeline, f"tokenizer{ending}", longer)
            rows[f"text_encoder{ending}.{word}"] = row
        yield rows


def _check(word: str) -> None:
    if not WORD.fullmatch(word):
        raise UsageError(f"A name for a subject must be small letters and digits, not {word!r}.")


def _with_word(tokenizer: Any, word: str) -> Any:
    """A copy of the tokenizer that reads the word, wherever it stands alone, as one token."""
    longer = copy.deepcopy(tokenizer)
    if not longer.add_tokens(AddedToken(word, single_word=True, normalized=True)):
        raise UsageError(f"{word!r} is a token of the model already; choose another name for the subject.")
    known = tokenizer.init_kwargs.get("whole_words")
    if known is not None:
        longer.init_kwargs["whole_words"] = [*known, word]
    return longer


def _first_row(tokenizer: Any, table: Any, like: str, random: torch.Generator) -> Tensor:
    weight: Tensor = table.weight.detach().float()
    text = known_text(tokenizer, like)
    numbers = tokenizer(text, add_special_tokens=False).input_ids if text else []
    if numbers:
        return weight[numbers].mean(0, keepdim=True)
    noise = torch.randn(1, weight.shape[1], generator=random).to(weight.device)
    return weight.mean(0) + weight.std(0) * noise


class _LongerTable(nn.Module):
    """An embedding table with one row more, of its own."""

    def __init__(self, table: nn.Embedding, row: nn.Parameter, number: int) -> None:
        super().__init__()
        self.table, self.row, self.number = table, row, number

    @property
    def weight(self) -> Tensor:
        return self.table.weight

    def forward(self, numbers: Tensor) -> Tensor:
        """Token numbers (B, K) to features (B, K, D)."""
        known: Tensor = self.table(numbers.clamp(max=len(self.table.weight) - 1))
        return torch.where((numbers == self.number)[..., None], self.row.to(known.dtype), known)


@contextmanager
def _longer_table(encoder: Any, longer: _LongerTable, tokenizer: Any) -> Iterator[None]:
    # Encoders with the old end-token number 2 take the largest number for the end, which the word would be.
    reader = getattr(encoder, "text_model", encoder)
    end = reader.eos_token_id
    encoder.set_input_embeddings(longer)
    reader.eos_token_id = tokenizer.eos_token_id
    try:
        yield
    finally:
        reader.eos_token_id = end
        encoder.set_input_embeddings(longer.table)
