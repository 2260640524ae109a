"""Stage 1: what a language model is asked, and reading its answers (lines 10 and 19 of Algorithm 1).

The paper names two requests (section 6): details of an object ("object-centric"), and a scene that involves
it ("scene-centric"). Their wording is not given; this is ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from jedi_diffusion.randomness import derive_seed
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.protocols import Failure, PromptWriter, one_each
from jedi_diffusion.synthesis.records import (
    CollagePlan,
    Key,
    Outcome,
    Reason,
    Rejection,
    Stage,
    Step,
)
from jedi_diffusion.synthesis.settings import StageSettings

PROMPTS_A_REQUEST = 20
"""Most prompts that one request asks for; longer lists repeat themselves."""
MAX_ANSWER = 50_000
"""Letters of an answer that are read."""
MAX_TRIALS = 50
"""Brackets of an answer at which JSON may begin; each costs a trial, and some models repeat one for ever."""

FORM = 'Answer with JSON only, in this form: {"prompts": ["...", "..."]}'
OBJECT_REQUEST = """\
Invent {count} different examples of: {thing}. Describe each so exactly that everyone would draw the same \
one: its shape, colors, materials, patterns, and marks that set it apart. Each description is one noun \
phrase of at most {words} words and has "{name}" in it. No background, no people, no writing. {form}"""
SCENE_REQUEST = """\
Invent {count} different scenes with one: {thing}. Describe each in one sentence of at most {words} words \
that contains the word "{name}" and says where it is, what is around it, and the light. Do not say what the \
{name} itself looks like. No people, no writing. {form}"""


def object_request(item: ObjectName, count: int, words: int) -> str:
    """Return the request for `count` object-centric prompts of at most `words` words."""
    return _fill(OBJECT_REQUEST, item, count, words)


def scene_request(item: ObjectName, count: int, words: int) -> str:
    """Return the request for `count` scene-centric prompts of at most `words` words."""
    return _fill(SCENE_REQUEST, item, count, words)


def _fill(template: str, item: ObjectName, count: int, words: int) -> str:
    # The category tells a crane that flies from one that lifts.
    thing = f"{item.name} ({item.category})"
    return template.format(count=count, thing=thing, name=item.name, words=words, form=FORM)


def read_answer(answer: str) -> list[str] | None:
    """Return the prompts in a language model's answer, None where there are none.

    The JSON may stand between other words or in a fence, and may be the bare list.
    """
    answer = answer[:MAX_ANSWER]
    decoder = json.JSONDecoder()
    for start in islice(re.finditer(r"[{\[]", answer), MAX_TRIALS):
        try:
            found, _ = decoder.raw_decode(answer, start.start())
        except (json.JSONDecodeError, RecursionError):
            continue
        prompts = found.get("prompts") if isinstance(found, dict) else found
        if isinstance(prompts, list) and prompts and all(isinstance(prompt, str) for prompt in prompts):
            return [" ".join(prompt.split()) for prompt in prompts]
    return None


def names_object(prompt: str, name: str) -> bool:
    """Return whether a prompt holds the name as whole words: any case, hyphens for spaces, singular or
    plural.
    """
    words = r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", name)))
    return re.search(rf"\b{words}(?:e?s)?\b", prompt, re.IGNORECASE) is not None


def judge_answer(
    answer: str | Failure, keys: Sequence[Key], settings: StageSettings, stage: Stage, seen: set[str]
) -> Iterator[str | Rejection]:
    """Yield a prompt or a rejection for each key that a request asked for; good ones are added to `seen`."""
    if isinstance(answer, Failure):
        yield from (Rejection(key, stage, Reason.MODEL_FAILED, answer.detail) for key in keys)
        return
    prompts = read_answer(answer)
    if prompts is None:
        yield from (Rejection(key, stage, Reason.UNREADABLE_ANSWER, answer[:200]) for key in keys)
        return
    for number, key in enumerate(keys):
        if number >= len(prompts):
            yield Rejection(key, stage, Reason.MISSING_PROMPT, f"{len(prompts)} of {len(keys)}")
            continue
        prompt = prompts[number].rstrip(" .,;")
        reason = _fault(prompt, key.item.name, settings.prompt_words, seen)
        if reason:
            yield Rejection(key, stage, reason, prompt[:200])
        else:
            seen.add(prompt.lower())
            yield prompt


def _fault(prompt: str, name: str, words: int, seen: set[str]) -> Reason | None:
    if len(prompt.split()) > words:
        return Reason.LONG_PROMPT
    if not names_object(prompt, name):
        return Reason.NAME_MISSING
    if prompt.lower() in seen:
        return Reason.DUPLICATE_PROMPT
    return None


def collage_prompt(prompt: str, settings: StageSettings) -> str:
    """Return the prompt with "photos of the same" appended (section 3.1), which makes a collage of one
    subject.
    """
    pictures = settings.collage_pictures
    suffix = settings.collage_suffix if pictures is None else f"{pictures} {settings.collage_suffix}"
    return f"{prompt}, {suffix}"


def plan_collages(
    items: Sequence[ObjectName], writer: PromptWriter, settings: StageSettings, seed: int
) -> Outcome[CollagePlan]:
    """Stage 1: object-centric prompts for `settings.collages` collages of every object."""
    asked = [
        [Key(item, number) for number in range(first, min(first + PROMPTS_A_REQUEST, settings.collages))]
        for item in items
        for first in range(0, settings.collages, PROMPTS_A_REQUEST)
    ]
    requests = [object_request(keys[0].item, len(keys), settings.prompt_words) for keys in asked]
    seeds = [derive_seed(seed, keys[0].item.name, Stage.PROMPT, keys[0].collage) for keys in asked]
    answers = one_each(writer, writer.write(requests, seeds), len(asked))
    seen: dict[str, set[str]] = {item.name: set() for item in items}
    results: list[CollagePlan | Rejection] = []
    for keys, answer, request_seed in zip(asked, answers, seeds, strict=True):
        judged = judge_answer(answer, keys, settings, Stage.PROMPT, seen[keys[0].item.name])
        for key, prompt in zip(keys, judged, strict=True):
            if isinstance(prompt, Rejection):
                results.append(prompt)
                continue
            details = {"prompt": prompt, "seed": request_seed, "model": writer.fingerprint}
            full = collage_prompt(prompt, settings)
            results.append(CollagePlan(key, full, (Step(Stage.PROMPT, details),)))
    return Outcome.of(results)
