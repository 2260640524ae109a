"""What the page does with a visitor's photos, controls and pictures, without the page."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.session import (
    MAX_MADE,
    MAX_PHOTOS,
    Controls,
    Photo,
    Session,
    ask_of,
    forget,
    keep,
    marked,
    prompts_of,
    read_controls,
    read_photo,
    sampling_of,
    status_of,
    write_zip,
)
from jedi_diffusion.errors import PictureError, UsageError
from jedi_diffusion.options import Sampling
from jedi_diffusion.pictures import read_parameters
from tests.helpers.fake_runners import CARD, FakeRunner, wait


def stripes(width: int, height: int) -> Image.Image:
    """Every column and every row has its own colour."""
    values = np.zeros((height, width, 3), dtype=np.uint8)
    values[..., 0], values[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
    return Image.fromarray(values)


def test_a_crop_moves_with_its_place() -> None:
    photo = Photo(stripes(64, 32), "a")
    left, middle, right = (
        np.asarray(Photo(photo.picture, "a", across).crop(32, 32)) for across in (0.0, 0.5, 1.0)
    )
    assert (left[0, 0, 0], middle[0, 0, 0], right[0, 0, 0]) == (0, 16, 32)
    tall = Photo(stripes(32, 64), "a", down=1.0).crop(32, 32)
    assert np.asarray(tall)[0, 0, 1] == 32


def test_the_balance_becomes_a_mode_and_two_scales() -> None:
    def guidance(**values: Any) -> tuple[Any, ...]:
        how = sampling_of(Controls(**values), Sampling())
        return how.guidance_mode, how.guidance, how.image_guidance

    assert guidance(balance=0.0) == ("joint", 3.0, 3.0)
    assert guidance(balance=-1.0) == ("text_first", 1.5, 4.5)
    assert guidance(balance=1.0) == ("image_first", 4.5, 1.5)
    by_hand = {"guidance_mode": "text_only", "guidance": 2.0, "image_guidance": 1.0}
    assert guidance(balance=1.0, by_hand=True, **by_hand) == ("text_only", 2.0, 1.0)


def test_a_model_without_guidance_on_text_leans_by_the_references_alone() -> None:
    distilled = Sampling(steps=4, guidance=1.0, image_guidance=1.0, guidance_mode="text_first")
    for balance, scale in ((-1.0, 1.5), (0.0, 1.0), (1.0, 0.5)):
        how = sampling_of(Controls(balance=balance, negative_prompt="fog"), distilled)
        assert (how.guidance_mode, how.guidance, how.image_guidance) == ("text_first", 1.0, scale)
        assert how.negative_prompt is None  # nothing would lead away from it
    assert sampling_of(Controls(negative_prompt="fog"), Sampling()).negative_prompt == "fog"


def test_what_the_engine_is_asked() -> None:
    session = Session([Photo(stripes(64, 32), "a", across=1.0)])
    controls = Controls(
        what=" a robot ", prompts="a robot on the beach\n\n a dog ", count=2, quality="fast", seed=7
    )
    ask = ask_of(session, controls, CARD)
    assert ask.prompts == ("a robot on the beach", "a robot on the beach", "a dog", "a dog")
    assert ask.seeds == (7, 8, 7, 8)
    assert ask.captions == ("a robot",)
    assert (ask.sampling.steps, ask.sampling.coupling) == (10, None)
    assert ask.references[0].tobytes() == session.photos[0].crop(16, 16).tobytes()
    drawn = {ask_of(session, Controls(prompts="a"), CARD).seeds for _ in range(3)}
    assert len(drawn) == 3


@pytest.mark.parametrize(
    ("controls", "said"),
    [
        ({"prompts": " \n "}, "one prompt a line"),
        ({"prompts": "a\0"}, "control character"),
        ({"prompts": "a\n" * 5, "count": 4}, "20 pictures"),
        ({"count": 0}, "Count is 0, but must lie between 1 and 16"),
        ({"seed": -1}, "Seed is -1"),
        ({"image_guidance": float("nan")}, "Image guidance is nan, but must lie between 0 and 100"),
        ({"steps": 10**6}, "Steps is 1000000"),
        ({"quality": "good"}, "Quality is 'good', but must be 'fast', 'balanced' or 'best'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(controls, said) -> None:
    with pytest.raises(UsageError, match=said):
        ask_of(Session([Photo(stripes(16, 16), "a")]), read_controls(controls), CARD)


def test_without_a_photo_nothing_is_asked() -> None:
    with pytest.raises(UsageError, match="photo"):
        ask_of(Session(), Controls(prompts="a"), CARD)


def test_photos_are_read_small_and_counted(tmp_path) -> None:
    path = tmp_path / "a.png"
    stripes(4000, 1000).save(path)
    photo = read_photo(path, "mine.png")
    assert (photo.picture.size, photo.name) == ((2048, 512), "mine.png")
    path.write_bytes(b"x")
    with pytest.raises(PictureError, match=r"mine\.png"):
        read_photo(path, "mine.png")
    with pytest.raises(UsageError, match="9 photos"):
        Session().give_photos([photo] * (MAX_PHOTOS + 1))


def made(session: Session, prompts: str, folder: Path) -> None:
    engine = Engine([FakeRunner()])
    controls = Controls(prompts=prompts, seed=3)
    job = wait(engine.submit(ask_of(session, controls, CARD)))
    engine.close(grace=0)
    keep(session, job, controls, CARD, folder)


def test_pictures_are_kept_with_their_settings_and_zipped(tmp_path) -> None:
    session = Session([Photo(stripes(16, 16), "a")])
    made(session, "../../etc\na robot", tmp_path)
    made(session, "a dog", tmp_path)
    assert [each.prompt for each in session.made] == ["a dog", "../../etc", "a robot"]
    assert all(each.path.resolve().is_relative_to(tmp_path) for each in session.made)
    assert read_parameters(session.made[2].path) == session.made[2].parameters
    with zipfile.ZipFile(write_zip(session, tmp_path)) as archive:
        names = archive.namelist()
        assert names[:3] == ["001_a-dog_3_0.png", "002_etc_3_0.png", "003_a-robot_3_1.png"]
        assert json.loads(archive.read("settings.json"))[0]["prompt"] == "a dog"
        assert Image.open(io.BytesIO(archive.read(names[0]))).size == (16, 16)
    paths = [each.path for each in session.made]
    forget(session, 1)
    assert [path.exists() for path in paths] == [True, False, False]
    assert len(session.made) == 1 <= MAX_MADE


def test_a_prompt_is_a_line_whatever_else_it_holds() -> None:
    assert prompts_of("a robot\u2028on the\x85beach\r\n\n a dog \n") == [
        "a robot\u2028on the\x85beach",
        "a dog",
    ]


def test_unknown_words_are_marked_and_nothing_is_html() -> None:
    assert marked("a robot", []) == ""
    text = marked("a Zebra <script> on_a zebra-crossing", ["zebra", "script"])
    assert text.count("<mark>") == 3
    assert "&lt;<mark>script</mark>&gt;" in text
    assert "<mark>Zebra</mark>" in text


def test_progress_in_words() -> None:
    engine = Engine([FakeRunner()])
    job = wait(engine.submit(ask_of(Session([Photo(stripes(16, 16), "a")]), Controls(prompts="a"), CARD)))
    engine.close(grace=0)
    assert "1 of 1 pictures are done. About 3 s left." in status_of(job, 2.5)
    assert 'role="status"' in status_of(job, None)
