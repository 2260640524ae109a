"""A prompt writer on a local language model that follows instructions.

Letters: B requests of a batch; V words of the vocabulary; L tokens so far.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from jedi_diffusion.devices import in_batches
from jedi_diffusion.errors import ModelError
from jedi_diffusion.synthesis.adapters.settings import InstructSettings
from jedi_diffusion.synthesis.protocols import Failure
from jedi_diffusion.vision.transformer import TransformerModel, explained


class SeededChoice(LogitsProcessor):
    """Draws each row's next word with the row's own random numbers, and leaves no other word possible.

    transformers draws for a batch as a whole, so that an answer would depend on what stands beside it. Here
    each row turns one uniform number a step into a word by the inverse of its distribution function: softmax
    at `temperature`, cut to the likeliest words that hold `top_p` of the probability.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self._chances = [random.Random(seed) for seed in seeds]
        self._temperature, self._top_p = temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """input_ids: (B, L); scores: (B, V), logits -> (B, V), 0 at the drawn word, -infinity elsewhere."""
        chances, order = (scores.float() / self._temperature).softmax(dim=-1).sort(dim=-1, descending=True)
        sums = chances.cumsum(dim=-1)
        last = (sums < self._top_p).sum(dim=-1, keepdim=True).clamp(max=sums.shape[-1] - 1)
        drawn = torch.tensor([[chance.random()] for chance in self._chances], device=scores.device)
        place = torch.searchsorted(sums, drawn * sums.gather(-1, last), right=True)
        word = order.gather(-1, torch.minimum(place, last))
        return torch.full_like(scores, float("-inf")).scatter_(-1, word, 0.0)


class InstructPromptWriter(TransformerModel):
    """`PromptWriter` on a causal language model with a chat template (ChatGPT in section 3.1).

    Raises ModelError for a model without a chat template.
    """

    def __init__(self, settings: InstructSettings, device: str) -> None:
        super().__init__(
            settings, device, "writer", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys(), AutoModelForCausalLM
        )
        self.settings = settings
        self._tokenizer = self.tokenizer()
        if not self._tokenizer.chat_template:
            raise ModelError(
                f"{self.model_name} has no chat template, so it follows no instructions: take an instruct "
                "model."
            )
        self._end = self.model.generation_config.eos_token_id
        if self._end is None:
            self._end = self._tokenizer.eos_token_id
        if self._end is None:
            raise ModelError(f"{self.model_name} does not say which token ends an answer (eos_token_id).")
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        # The model's own would bring limits and penalties that the recipe does not show.
        plain: Any = GenerationConfig
        self.model.generation_config = plain(
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            eos_token_id=self._end,
            pad_token_id=self._tokenizer.pad_token_id,
        )

    def write(self, requests: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """B answers; a Failure for an empty one, and for one that does not end in `max_new_tokens`."""
        return in_batches(
            [None] * len(requests),
            self.batch_size,
            lambda batch: self._write(
                [requests[place] for place in batch], [seeds[place] for place in batch]
            ),
        )

    def _write(self, requests: list[str], seeds: list[int]) -> list[str | Failure]:
        with explained(self.model_name):  # a template can fail on what it is given
            texts = [
                self._tokenizer.apply_chat_template(
                    [{"role": "user", "content": request}],
                    tokenize=False,
                    add_generation_prompt=True,
                    **self.settings.template,
                )
                for request in requests
            ]
        given = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        self._check_room(given["input_ids"].shape[1])
        processors = LogitsProcessorList()
        if self.settings.temperature > 0:
            processors.append(SeededChoice(seeds, self.settings.temperature, self.settings.top_p))
        with self.at_work():
            answers = self.model.generate(
                input_ids=given["input_ids"].to(self.device),
                attention_mask=given["attention_mask"].to(self.device),
                logits_processor=processors,
            )
        return [self._read(row) for row in answers[:, given["input_ids"].shape[1] :].cpu()]

    def _check_room(self, length: int) -> None:
        most = getattr(self.model.config, "max_position_embeddings", None)
        if most is not None and length + self.settings.max_new_tokens > most:
            raise ModelError(
                f"{self.model_name} reads {most} tokens, fewer than a request of {length} and an answer of "
                f"{self.settings.max_new_tokens}: lower max_new_tokens."
            )

    def _read(self, tokens: Any) -> str | Failure:
        ends = [self._end] if isinstance(self._end, int) else self._end
        if not any(int(token) in ends for token in tokens):
            return Failure(f"the answer does not end within {self.settings.max_new_tokens} tokens")
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text if text.strip() else Failure("the answer has no text")
