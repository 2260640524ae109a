"""Stage 1: requests, answers of language models in every shape, and the collage's text."""

import json

import pytest

from jedi_diffusion.errors import ModelError
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.prompts import (
    collage_prompt,
    names_object,
    object_request,
    plan_collages,
    read_answer,
    scene_request,
)
from jedi_diffusion.synthesis.protocols import Failure
from jedi_diffusion.synthesis.records import Reason, Stage
from jedi_diffusion.synthesis.settings import StageSettings
from tests.helpers.synthesis_models import Writer

CUP = ObjectName("tea cup", "kitchenware")


def test_requests_say_what_how_many_and_in_which_form() -> None:
    for request in (object_request(CUP, 3, 40), scene_request(CUP, 3, 40)):
        assert "Invent 3 different" in request
        assert "tea cup (kitchenware)" in request
        assert '"tea cup"' in request
        assert "at most 40 words" in request
        assert '{"prompts": ["...", "..."]}' in request


@pytest.mark.parametrize(
    ("answer", "prompts"),
    [
        ('{"prompts": ["a", "b"]}', ["a", "b"]),
        ('Sure! Here you are:\n```json\n{"prompts": ["a",\n "b  c"]}\n```\nEnjoy.', ["a", "b c"]),
        ('["a", "b"]', ["a", "b"]),
        ('A set {of two} [see]: {"prompts": ["a {b}"]}', ["a {b}"]),
        ('{"prompts": []}', None),
        ('{"prompts": "a"}', None),
        ('{"prompts": ["a", 3]}', None),
        ('{"prompts": ["a"', None),
        ("I am sorry, I cannot help with that.", None),
        ("", None),
        ("[" * 5000, None),
    ],
)
def test_answers_are_read_in_every_usual_shape(answer: str, prompts: list[str] | None) -> None:
    assert read_answer(answer) == prompts


@pytest.mark.parametrize(
    ("prompt", "name", "expected"),
    [
        ("a red Tea Cup", "tea cup", True),
        ("two tea-cups", "tea cup", True),
        ("an hour-glass", "hour glass", True),
        ("a cupboard", "cup", False),
        ("three foxes", "fox", True),
        ("a teddy  bear", "teddy bear", True),
        ("a jack-in-the-box", "jack-in-the-box", True),
        ("a C+ clamp", "C+", False),
        ("a bear called Teddy", "teddy bear", False),
    ],
)
def test_a_prompt_must_name_its_object(prompt: str, name: str, expected: bool) -> None:
    assert names_object(prompt, name) is expected


def test_the_papers_text_is_appended() -> None:
    assert collage_prompt("a red cup", StageSettings()) == "a red cup, photos of the same"
    numbered = StageSettings(collage_pictures=4, collage_suffix="views of one")
    assert collage_prompt("a red cup", numbered) == "a red cup, 4 views of one"


def test_every_collage_of_every_object_gets_a_prompt_of_its_own() -> None:
    writer = Writer()
    items = [CUP, ObjectName("fox", "canine")]
    made = plan_collages(items, writer, StageSettings(collages=45), 7)
    assert not made.rejected
    assert [(plan.key.item, plan.key.collage) for plan in made.kept] == [
        (item, number) for item in items for number in range(45)
    ]
    assert len({plan.prompt for plan in made.kept}) == 90
    assert [request.split()[1] for request in writer.requests] == ["20", "20", "5"] * 2
    (step,) = made.kept[0].history
    assert step.as_json()["model"] == "test-writer"
    assert made.kept[0].prompt == f"{step.details['prompt']}, photos of the same"


def test_bad_answers_are_rejected_with_their_reason() -> None:
    said = {"prompts": ["A tea cup.", "a kettle", "one TEA CUP", "tea cup " * 40, "a blue tea cup"]}
    made = plan_collages([CUP], Writer([json.dumps(said)]), StageSettings(collages=7), 0)
    assert [plan.prompt for plan in made.kept] == [
        "A tea cup, photos of the same",
        "one TEA CUP, photos of the same",
        "a blue tea cup, photos of the same",
    ]
    assert [(each.key.collage, each.reason) for each in made.rejected] == [
        (1, Reason.NAME_MISSING),
        (3, Reason.LONG_PROMPT),
        (5, Reason.MISSING_PROMPT),
        (6, Reason.MISSING_PROMPT),
    ]
    twice = {"prompts": ["a tea cup", "A Tea Cup "]}
    made = plan_collages([CUP], Writer([json.dumps(twice)]), StageSettings(collages=2), 0)
    assert [each.reason for each in made.rejected] == [Reason.DUPLICATE_PROMPT]


@pytest.mark.parametrize(
    ("answer", "reason", "detail"),
    [
        (Failure("HTTP 500"), Reason.MODEL_FAILED, "HTTP 500"),
        ("No.", Reason.UNREADABLE_ANSWER, "No."),
    ],
)
def test_a_request_without_answer_rejects_all_that_it_asked_for(
    answer: str | Failure, reason: Reason, detail: str
) -> None:
    made = plan_collages([CUP], Writer([answer]), StageSettings(collages=3), 0)
    assert not made.kept
    assert [each.as_json() for each in made.rejected] == [
        {
            "object": "tea cup",
            "category": "kitchenware",
            "collage": number,
            "stage": Stage.PROMPT.value,
            "reason": reason.name.lower(),
            "detail": detail,
        }
        for number in range(3)
    ]


def test_a_writer_that_answers_too_little_is_named() -> None:
    with pytest.raises(ModelError, match="test-writer gave 0 results for 1 items"):
        plan_collages([CUP], Writer([]), StageSettings(), 0)
