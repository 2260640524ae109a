"""Settings of earlier pictures on the page: those that are recorded here, and files that are none."""

import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.recorded import take_settings
from jedi_diffusion.app.session import Controls, Photo, Session, ask_of, keep, write_zip
from jedi_diffusion.cli.generate import Item, parameters_of
from jedi_diffusion.cli.options import GenerateOptions, to_record
from jedi_diffusion.errors import JeDiError, PictureError, UsageError
from jedi_diffusion.pictures import MAX_PARAMETERS, save_png
from tests.helpers.fake_runners import CARD, FakeRunner, wait

RUN = GenerateOptions(
    reference=("/nobody/home/a.jpg", "/nobody/home/b.jpg"),
    prompt=("a robot on the beach", "a robot\nin the snow"),
    reference_prompt=("a robot",),
    out="/nobody/out",
    images_per_prompt=3,
    steps=7,
    guidance=4.0,
    guidance_mode="image_first",
    image_guidance=1.5,
    null_set="joint",
    coupling="cached",
    temperature=1.0,
    size=16,
    seed=5,
)
WANTED = Controls(
    what="a robot",
    prompts="a robot on the beach\na robot in the snow",
    count=3,
    seed=5,
    by_hand=True,
    guidance_mode="image_first",
    guidance=4.0,
    image_guidance=1.5,
    steps=7,
    coupling="cached",
    temperature=1.0,
)
PHOTOS = "The file does not hold its 2 photos: add them yourself."


def settings_of(run: GenerateOptions = RUN, **options: object) -> dict:
    """What `jedi generate` writes of a run by the model of CARD, with other options over its own."""
    return {
        "program": "jedi-diffusion",
        "options": json.loads(json.dumps(to_record(run))) | options,
        "model": {"name": CARD.name, "fingerprint": CARD.fingerprint, "scheduler": CARD.scheduler},
        "references": [{"path": path, "salt": "s", "digest": "d"} for path in run.reference],
        "pictures": [],
        "threads": 1,
        "versions": {},
    }


def written(folder: Path, value: object) -> Path:
    path = folder / "settings.json"
    path.write_text(json.dumps(value))
    return path


def test_the_settings_of_a_run_become_the_controls_without_a_look_at_its_photos(
    tmp_path, monkeypatch
) -> None:
    path = written(tmp_path, settings_of())
    opened: list[str] = []
    real = io.open
    monkeypatch.setattr(io, "open", lambda file, *rest: opened.append(str(file)) or real(file, *rest))
    monkeypatch.setattr(os, "stat", lambda *_, **__: pytest.fail("a path of the file was looked at"))
    taken = take_settings(path, CARD)
    monkeypatch.undo()
    assert (taken.controls, taken.remarks) == (WANTED, (PHOTOS,))
    assert opened == [str(path)]


def test_a_picture_of_the_command_line_has_its_own_prompt_and_seed(tmp_path) -> None:
    path = tmp_path / "a.png"
    save_png(path, Image.new("RGB", (16, 16)), parameters_of(Item("a dog", 9, "a.png"), settings_of()))
    taken = take_settings(path, CARD)
    assert taken.controls == WANTED.model_copy(update={"prompts": "a dog", "count": 1, "seed": 9})
    assert taken.remarks == (PHOTOS,)


def test_pictures_of_the_page_and_its_archive_are_asked_for_again(tmp_path) -> None:
    session = Session([Photo(Image.new("RGB", (16, 16)), "a")])
    engine = Engine([FakeRunner()])
    ask = ask_of(
        session, Controls(what="an owl", prompts="one\ntwo", balance=1.0, quality="fast", seed=3), CARD
    )
    job = wait(engine.submit(ask))
    engine.close(grace=0)
    keep(session, job, Controls(), CARD, tmp_path)
    taken = take_settings(session.made[1].path, CARD)
    again = ask_of(session, taken.controls, CARD)
    assert (again.prompts, again.seeds, again.captions) == (("two",), (3,), ("an owl",))
    assert again.sampling == ask.sampling
    assert taken.remarks == ("The file does not hold its photo: add it yourself.",)
    rows = [each.parameters for each in session.made]
    assert write_zip(session, tmp_path).exists()
    taken = take_settings(written(tmp_path, rows), CARD)
    assert taken.controls.prompts == "one"
    assert "first" in taken.remarks[0]


def test_what_the_page_or_the_model_does_not_have_is_named(tmp_path) -> None:
    changes = {
        "prompt": tuple(f"a {number}" for number in range(20)),
        "reference_prompt": ("a robot", "a red robot"),
        "images_per_prompt": 9,
        "joint_targets": True,
        "size": 64,
        "seed": 2**60,
        "fit": "pad",
        "enlarge": 4,
        "attention_map": "0.5,0.5",
    }
    other = RUN.model_copy(update=changes)
    settings = settings_of(other, sharpness=3) | {
        "model": {"name": "mine\x00\ud800", "fingerprint": "0", "scheduler": "EulerDiscreteScheduler"}
    }
    taken = take_settings(written(tmp_path, settings), CARD)
    assert taken.controls.prompts.count("\n") == 15
    assert (taken.controls.count, taken.controls.what, taken.controls.seed) == (4, "a robot", None)
    (left_out, model, _) = taken.remarks
    named = [
        "size 64x64",
        "20 prompts",
        "9 pictures",
        "another description",
        f"seed {2**60}",
    ]
    named += ["joint_targets", "EulerDiscreteScheduler", "fit pad", "enlarge 4"]
    named += ["attention_map 0.5,0.5", "sharpness"]
    for words in named:
        assert words in left_out, words
    assert left_out.count(";") == len(named) - 1
    assert model == "They were made by the model mine, not by toybox."
    same = settings_of() | {"model": {**settings_of()["model"], "fingerprint": "0"}}
    assert "other weights of toybox" in take_settings(written(tmp_path, same), CARD).remarks[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "neither"),
        (b"prompt: a robot", "neither"),
        (b"\xff\xd8\xff\xe0", "neither"),
        (b"[" * 10**5, "neither"),
        (b"[]", "top level"),
        (b"3", "top level"),
        (b"{}", "options is missing"),
        (json.dumps(settings_of(steps="many")).encode(), "steps is 'many', but must be"),
        (json.dumps(settings_of(steps=10**6)).encode(), "steps is 1000000, but must lie between 1 and 1000"),
        (json.dumps(settings_of(seed=-1)).encode(), "seed is -1"),
        (json.dumps(settings_of(seed=10**400)).encode(), "seed is 1000"),
        (json.dumps(settings_of(guidance=float("nan"))).encode(), "guidance is nan"),
        (json.dumps(settings_of(prompt=["a\ud800"])).encode(), "Unicode"),
        (b" " * (MAX_PARAMETERS + 1), "bytes that settings may have"),
        (b"\x89PNG\r\n\x1a\nnothing", r"dropped\.png"),
    ],
)
def test_a_file_that_is_no_settings_gets_one_sentence(content, said, tmp_path) -> None:
    path = tmp_path / "dropped.png"
    path.write_bytes(content)
    with pytest.raises((UsageError, PictureError), match=said) as caught:
        take_settings(path, CARD)
    assert str(tmp_path) not in str(caught.value)


def test_a_picture_without_settings_or_with_too_many_is_refused(tmp_path) -> None:
    path = tmp_path / "a.png"
    for parameters, said in ((None, "without settings"), ({"a": "x" * MAX_PARAMETERS}, "characters")):
        save_png(path, Image.new("RGB", (8, 8)), parameters)
        with pytest.raises(JeDiError, match=said):
            take_settings(path, CARD)
