"""Prompts from a local language model: the draws are exact, and nothing depends on the batch."""

import random
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from jedi_diffusion.errors import ModelError
from jedi_diffusion.synthesis.adapters.instruct import InstructPromptWriter, SeededChoice
from jedi_diffusion.synthesis.adapters.settings import InstructSettings
from jedi_diffusion.synthesis.protocols import Failure

REQUESTS = ["a", "Invent 3 teapots.", "Something rather longer than the others, with a comma", "b c", ""]
SEEDS = [5, 2**63 - 1, 0, 5, 7]


def settings(folder, **changes):
    given = {"model": str(folder), "max_new_tokens": 60, "top_p": 0.9, "temperature": 0.8}
    return InstructSettings(**{**given, **changes})


@pytest.fixture(scope="module")
def folder(checkpoint):
    return checkpoint("instruct")


def step_by_step(model, words, request, seed, top_p=0.9, temperature=0.8, steps=60):
    """The answer without batch, padding, cache or generate(): one whole pass for each word."""
    ids = words(f"[user]{request}[answer]")["input_ids"]
    chance, answer = random.Random(seed), []
    for _ in range(steps):
        with torch.no_grad():
            logits = model(torch.tensor([ids + answer])).logits[0, -1].double() / temperature
        ranked = sorted(enumerate(logits.softmax(-1).tolist()), key=lambda each: -each[1])
        kept, held = [], 0.0
        for word, part in ranked:
            kept.append((word, part))
            held += part
            if held >= top_p:
                break
        aim, passed = chance.random() * held, np.cumsum([part for _, part in kept])
        word = kept[int(np.argmax(passed > aim))][0]
        answer.append(word)
        if word in model.generation_config.eos_token_id:
            return words.decode(answer, skip_special_tokens=True)
    return None


def test_each_word_is_drawn_from_the_models_distribution_with_the_prompts_own_seed(folder):
    writer = InstructPromptWriter(settings(folder, batch_size=5), "cpu")
    answers = writer.write(REQUESTS, SEEDS)
    model, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    asked = zip(REQUESTS, SEEDS, strict=True)
    assert answers == [step_by_step(model, words, request, seed) for request, seed in asked]
    assert all(isinstance(answer, str) for answer in answers)
    assert len(set(answers)) == len(answers)


def test_answers_depend_on_their_request_and_seed_alone(folder):
    together = InstructPromptWriter(settings(folder, batch_size=5), "cpu").write(REQUESTS, SEEDS)
    writer = InstructPromptWriter(settings(folder, batch_size=2), "cpu")
    assert writer.write(REQUESTS[::-1], SEEDS[::-1])[::-1] == together
    assert writer.write(REQUESTS[1:2], SEEDS[1:2]) == together[1:2]
    assert writer.write(REQUESTS[1:2], [3]) != together[1:2]
    assert writer.write([], []) == []


def test_temperature_zero_takes_the_likeliest_word(folder):
    writer = InstructPromptWriter(settings(folder, temperature=0), "cpu")
    first, second, other = writer.write(["a", "a", "Invent"], [0, 1, 1])
    assert first == second != other
    nearly = InstructPromptWriter(settings(folder, top_p=1e-6), "cpu")
    assert nearly.write(["a"], [9]) == [first]


def test_draws_follow_the_cut_distribution():
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -3.0])
    rows = 4000
    choice = SeededChoice(range(rows), temperature=0.7, top_p=0.9)
    drawn = choice(torch.zeros(rows, 0), logits.expand(rows, -1))
    assert (drawn == 0).sum(dim=1).tolist() == [1] * rows
    assert torch.isinf(drawn).sum() == rows * 4
    found = Counter(drawn.argmax(dim=1).tolist())
    chances = np.exp(logits.numpy() / 0.7)
    chances /= chances.sum()
    assert chances[:2].sum() < 0.9 < chances[:3].sum()
    for word, chance in enumerate(chances[:3] / chances[:3].sum()):
        assert abs(found[word] / rows - chance) < 4 * (chance * (1 - chance) / rows) ** 0.5
    assert found.keys() == {0, 1, 2}


def test_an_unfinished_or_empty_answer_fails_alone(folder):
    writer = InstructPromptWriter(settings(folder, max_new_tokens=1), "cpu")
    answers = writer.write(["a"] * 30, range(30))
    assert Failure("the answer does not end within 1 tokens") in answers
    assert any(isinstance(answer, str) for answer in answers)


def test_the_template_gets_its_values(folder):
    plain = InstructPromptWriter(settings(folder), "cpu").write(["a"], [1])
    other = InstructPromptWriter(settings(folder, template={"tone": "short "}), "cpu").write(["a"], [1])
    assert other != plain


def test_settings_that_decide_are_in_the_fingerprint(folder):
    one = InstructPromptWriter(settings(folder), "cpu").fingerprint
    assert one.startswith("LlamaForCausalLM blake2b:")
    assert '"dtype": "float32"' in one
    assert '"top_p": 0.9' in one
    assert InstructPromptWriter(settings(folder, batch_size=3, offload=True), "cpu").fingerprint == one
    assert InstructPromptWriter(settings(folder, temperature=0.5), "cpu").fingerprint != one


def test_a_model_without_chat_template_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "base")
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template"):
        InstructPromptWriter(settings(copy), "cpu")
    assert load_file(copy / "model.safetensors")


def test_a_template_that_fails_is_explained(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "strict")
    (copy / "chat_template.jinja").write_text("{{ raise_exception('a system message comes first') }}")
    with pytest.raises(ModelError, match="a system message comes first"):
        InstructPromptWriter(settings(copy), "cpu").write(["a"], [0])


def test_reduced_precision_runs(folder):
    writer = InstructPromptWriter(settings(folder, dtype="bfloat16", offload=True), "cpu")
    assert all(isinstance(answer, str) for answer in writer.write(REQUESTS, SEEDS))


def test_answers_longer_than_the_model_reads_are_refused(folder):
    writer = InstructPromptWriter(settings(folder, max_new_tokens=250), "cpu")
    with pytest.raises(ModelError, match=r"reads 256 tokens, .* lower max_new_tokens"):
        writer.write(["a"], [0])
