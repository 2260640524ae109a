"""A name for one subject in prompts, and new words for tokenizers and text encoders.

Letters: B captions; K text tokens; D text features.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from jedi_diffusion.errors import UsageError
from jedi_diffusion.inputs import known_text

ARTICLES = ("a ", "an ", "the ")
WORD = re.compile(r"[a-z0-9]+")


def noun_of(caption: str) -> str:
    """Return a caption without its article: "a stuffed animal" gives "stuffed animal"."""
    article = next((each for each in ARTICLES if caption.lower().startswith(each)), "")
    return caption[len(article) :].strip()


def rename(prompt: str, noun: str, name: str) -> str:
    """Return the prompt with the first `noun`, as whole words and in any case, replaced; else the name in
    front.
    """
    if noun:
        changed, found = re.subn(
            rf"(?<!\w){re.escape(noun)}(?!\w)", lambda _: name, prompt, count=1, flags=re.IGNORECASE
        )
        if found:
            return changed
    return f"{name}, {prompt}" if prompt else name


def knows(tokenizer: Any, word: str) -> bool:
    """Return whether a tokenizer reads the word at all: one of a closed vocabulary may leave it out."""
    return known_text(tokenizer, word) == word


@dataclass(frozen=True)
class NamedSubject:
    """How DreamBooth and its kin call a subject: a word that means little to the model, before the class."""

    name: str = "sks"

    def captions(self, noun: str) -> Sequence[str]:
        """Return what the references are called while fitting."""
        return (f"a {self.name} {noun}",)

    def prompt(self, text: str, noun: str) -> str:
        """Return a prompt with the word before the class."""
        return rename(text, noun, f"{self.name} {noun}")


def identifier(pipeline: Any, word: str, random: torch.Generator) -> None:
    """Let a private pipeline read the word: as it is where it reads any text, else as a new one, not trained.

    Its row is drawn at random then, as a rare word's would be. Raises UsageError for a word that is not small
    letters and digits.
    """
    _check(word)
    if not knows(pipeline.tokenizer, word):
        new_word(pipeline, word, "", random)


def new_word(pipeline: Any, word: str, like: str, random: torch.Generator) -> dict[str, nn.Parameter]:
    """Make `word` one token of its own to every text encoder; return its rows, (1, D) each, by name.

    pipeline: one that nobody else uses (`parameters.private_copy`). A row starts as the mean of those of the
    words `like`; where the model reads none of them, at random, with the mean and deviation of the table.
    Raises UsageError for a word that is not small letters and digits, or is a token already.
    """
    _check(word)
    rows = {}
    for ending in ("", "_2"):
        tokenizer = getattr(pipeline, f"tokenizer{ending}")
        encoder = getattr(pipeline, f"text_encoder{ending}")
        if tokenizer is None or encoder is None:
            continue
        table = encoder.get_input_embeddings()
        row = nn.Parameter(_first_row(tokenizer, table, like, random))
        _add_word(tokenizer, word)
        encoder.set_input_embeddings(_LongerTable(table, row, tokenizer.convert_tokens_to_ids(word)))
        # Encoders with the old end-token number 2 take the largest number for the end, which the word is.
        getattr(encoder, "text_model", encoder).eos_token_id = tokenizer.eos_token_id
        rows[f"text_encoder{ending}.{word}"] = row
    return rows


def _check(word: str) -> None:
    if not WORD.fullmatch(word):
        raise UsageError(f"A name for a subject must be small letters and digits, not {word!r}.")


def _add_word(tokenizer: Any, word: str) -> None:
    """Let the tokenizer read the word, wherever it stands alone, as one token."""
    if not tokenizer.add_tokens(AddedToken(word, single_word=True, normalized=True)):
        raise UsageError(f"{word!r} is a token of the model already; choose another name for the subject.")
    known = tokenizer.init_kwargs.get("whole_words")
    if known is not None:
        tokenizer.init_kwargs["whole_words"] = [*known, word]


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
        """Turn token numbers (B, K) into features (B, K, D)."""
        known: Tensor = self.table(numbers.clamp(max=len(self.table.weight) - 1))
        return torch.where((numbers == self.number)[..., None], self.row.to(known.dtype), known)
