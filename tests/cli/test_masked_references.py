"""Masks and strengths from command lines and batch lines to pictures, contact sheets and exact repeats."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion import models
from jedi_diffusion.cli.options import one_for_each_reference, parse
from jedi_diffusion.errors import UsageError
from jedi_diffusion.pictures import read_parameters, upright_size
from jedi_diffusion.vision.subject_mask import subject_masks
from tests.helpers.drawn_photos import ball_on_a_lawn

PICTURE = "a-robot-on-the-beach_0.png"


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """Of the photo of 70 x 50 pixels, the right half."""
    path = tmp_path / "mask.png"
    drawn = Image.new("L", (70, 50))
    drawn.paste(255, (35, 0, 70, 50))
    drawn.save(path)
    return path


def made(folder: Path) -> bytes:
    with Image.open(folder / PICTURE) as picture:
        return picture.tobytes()


def settings_of(folder: Path) -> dict:
    return json.loads((folder / "settings.json").read_text())


def test_each_belongs_to_the_reference_before_it() -> None:
    words = "--prompt p --reference a --strength 2 --reference=b --reference c --mask=m --strength 0.5"
    given = parse(words.split())
    assert given.reference == ("a", "b", "c")
    assert given.mask == ("", "", "m")
    assert given.strength == (2, 1, 0.5)
    plain = ["--reference", "a", "--prompt", "--mask"]
    assert one_for_each_reference(plain) == plain
    assert parse(["--reference", "a"]).mask == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--mask m --reference a", "--mask m has no --reference before it"),
        ("--strength=2", "--strength 2 has no --reference before it"),
        ("--reference a --mask m --mask n", "--reference a has a second --mask, n; give one"),
        ("--reference a --strength 0", "--strength is 0.0, but must be greater than 0"),
        ("--reference a --strength -1", "--strength is -1.0, but must be greater than 0"),
        ("--reference a --strength 101", "--strength is 101.0, but must be less than or equal to 100"),
    ],
)
def test_what_belongs_to_no_reference_or_is_out_of_range_is_said_in_a_sentence(words: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words.split())
    assert said in str(caught.value)


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_they_change_the_picture_and_settings_repeat_them(
    generate, jedi, photo, mask, tmp_path, coupling
) -> None:
    words = ("--coupling", coupling, "--size", 64)
    whole = generate(*words, "--out", tmp_path / "whole")
    assert whole.status == 0, whole.err
    masked = generate(*words, "--mask", mask, "--strength", 0.5, "--reference", photo)
    # the default reference comes first, so that here there are two: the second is whole
    assert masked.status == 2
    two = ("--reference", photo, "--mask", mask, "--strength", 0.5, "--reference", photo)
    masked = generate(*words, *two)
    assert masked.status == 0, masked.err
    settings = settings_of(tmp_path / "out")
    assert settings["options"]["mask"] == [str(mask), ""]
    assert settings["options"]["strength"] == [0.5, 1.0]
    assert settings["references"][0]["mask"].keys() == {"path", "salt", "digest"}
    assert "mask" not in settings["references"][1]
    parameters = read_parameters(tmp_path / "out" / PICTURE)
    assert parameters["options"]["strength"] == [0.5, 1.0]
    assert mask.name not in json.dumps(parameters)
    again = jedi("generate", "--from", tmp_path / "out" / "settings.json", "--out", tmp_path / "again")
    assert again.status == 0, again.err
    assert made(tmp_path / "again") == made(tmp_path / "out")
    assert settings_of(tmp_path / "again")["options"]["mask"] == [str(mask), ""]
    other = jedi(
        *("generate", "--from", tmp_path / "out" / "settings.json", "--out", tmp_path / "other"),
        *("--reference", photo),
    )
    assert other.status == 0, other.err
    assert made(tmp_path / "other") == made(tmp_path / "whole")
    Image.new("L", (70, 50), 255).save(mask)
    changed = jedi("generate", "--from", tmp_path / "out" / "settings.json")
    assert changed.status == 1
    assert "mask.png has changed since the run" in changed.err


def test_a_white_mask_and_strength_1_are_what_a_whole_reference_is(generate, photo, mask, tmp_path) -> None:
    Image.new("L", (70, 50), 255).save(mask)
    assert generate("--out", tmp_path / "whole").status == 0
    done = generate("--reference", photo, "--mask", mask, "--strength", 1)
    assert done.status == 0, done.err
    assert made(tmp_path / "out") == made(tmp_path / "whole")
    assert "strength" not in settings_of(tmp_path / "out")["options"]
    assert "mask" not in settings_of(tmp_path / "whole")["options"]


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_the_contact_sheet_fades_what_the_mask_leaves_out(generate, photo, mask, tmp_path, fit) -> None:
    """The left half of the reference, which fills a cell of 256 pixels; what is near the edge is left out."""
    assert generate("--out", tmp_path / "whole", "--fit", fit).status == 0
    done = generate("--fit", fit, "--reference", photo, "--mask", mask, "--strength", 0.5)
    assert done.status == 0, done.err
    sheets = []
    for folder in ("whole", "out"):
        with Image.open(tmp_path / folder / "sheet.png") as opened:
            sheets.append(np.asarray(opened.convert("RGB")).astype(int)[140:240, 10:266])
    whole, masked = sheets
    assert np.array_equal(whole[:, 160:], masked[:, 160:])
    faded = 255 - (255 - whole[:, :96]) * 0.2
    assert np.abs(masked[:, :96] - faded).max() < 3
    assert (whole[:, :96] < 200).any()


def test_masks_are_as_large_as_the_file_even_where_a_large_photo_is_decoded_smaller(
    generate, tmp_path
) -> None:
    """A JPEG of 4200 x 4160 pixels, turned by its EXIF, is decoded at half its size."""
    values = np.random.default_rng(0).integers(0, 255, (52, 52, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    large = Image.fromarray(values).resize((4200, 4160), Image.Resampling.NEAREST)
    large.save(tmp_path / "large.jpg", exif=exif)
    assert upright_size((tmp_path / "large.jpg").read_bytes(), "large.jpg") == (4160, 4200)
    Image.new("L", (4160, 4200), 255).save(tmp_path / "white.png")
    done = generate("--reference", tmp_path / "large.jpg", "--mask", tmp_path / "white.png")
    assert done.status == 0, done.err
    white = made(tmp_path / "out")
    assert generate("--reference", tmp_path / "large.jpg", "--out", tmp_path / "plain").status == 0
    assert made(tmp_path / "plain") == white


def bad_masks(folder: Path) -> dict[str, tuple[Path, str]]:
    Image.new("L", (70, 50)).save(folder / "black.png")
    Image.new("L", (9, 9), 255).save(folder / "small.png")
    (folder / "text.png").write_text("no picture")
    return {
        "black.png": (folder / "black.png", "is empty: nothing in it is white"),
        "small.png": (
            folder / "small.png",
            "has 9x9 pixels, but {photo} has 70x50: they must be of one size",
        ),
        "text.png": (folder / "text.png", "is not a picture in one of the accepted formats"),
        "none.png": (folder / "none.png", "is not a file"),
    }


@pytest.mark.parametrize("name", ["black.png", "small.png", "text.png", "none.png"])
def test_a_bad_mask_is_named_before_the_model_is_loaded(generate, photo, tmp_path, monkeypatch, name) -> None:
    monkeypatch.setattr(models, "load_model", lambda *_: pytest.fail("the model was loaded"))
    path, said = bad_masks(tmp_path)[name]
    done = generate("--reference", photo, "--mask", path)
    assert done.status == 1
    assert str(path) in done.err
    assert said.format(photo=photo) in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_mask_with_nothing_in_the_centre_that_is_read_is_refused(generate, photo, mask, tmp_path) -> None:
    drawn = Image.new("L", (70, 50))
    drawn.paste(255, (0, 0, 5, 50))
    drawn.save(mask)
    done = generate("--reference", photo, "--mask", mask)
    assert done.status == 1
    assert f"{photo} is cut to its centre, where its mask {mask} shows nothing" in done.err
    assert not (tmp_path / "out" / "settings.json").exists()
    padded = generate("--reference", photo, "--mask", mask, "--fit", "pad")
    assert padded.status == 0, padded.err


def batch(jedi, joint_model: Path, folder: Path, *lines: object, words: tuple[str, ...] = ()):
    jobs = folder / "jobs.jsonl"
    jobs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    fixed = ("--out", folder / "batch", "--model", joint_model, "--device", "cpu")
    return jedi("batch", jobs, *fixed, *words)


def test_batch_lines_have_them_in_the_order_of_the_references(
    jedi, generate, joint_model, photo, mask, tmp_path
) -> None:
    line = {"reference": [photo.name, photo.name], "mask": [None, mask.name], "strength": [1, 0.5]}
    line |= {"prompt": "a robot on the beach", "steps": 2, "name": "job"}
    done = batch(jedi, joint_model, tmp_path, line)
    assert done.status == 0, done.err
    same = generate("--reference", photo, "--reference", photo, "--mask", mask, "--strength", 0.5)
    assert same.status == 0, same.err
    assert made(tmp_path / "batch" / "job") == made(tmp_path / "out")
    kept = batch(jedi, joint_model, tmp_path, line)
    assert "0 new pictures" in kept.out
    refused = batch(jedi, joint_model, tmp_path, line | {"strength": [1, 0.6]})
    assert refused.status == 1
    assert "made with other settings" in refused.err
    Image.new("L", (70, 50), 255).save(mask)
    for changed in (line, {name: value for name, value in line.items() if name != "mask"}):
        refused = batch(jedi, joint_model, tmp_path, changed)
        assert refused.status == 1
        assert "made from other references" in refused.err
    again = batch(jedi, joint_model, tmp_path, line, words=("--overwrite",))
    assert "1 new pictures" in again.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"mask": ["mask.png"]}, "1 masks for 2 references: give none, or one each"),
        ({"strength": 0.5}, "1 strengths for 2 references: give none, or one each"),
        ({"strength": [1, 0]}, "strength.1 is 0, but must be greater than 0"),
        ({"strength": ["a", 1]}, "strength.0 is 'a', but must be a valid number"),
    ],
)
def test_wrong_batch_lines_are_reported(jedi, joint_model, photo, tmp_path, line, said) -> None:
    whole = {"reference": [photo.name, photo.name], "prompt": "a robot"} | line
    done = batch(jedi, joint_model, tmp_path, whole)
    assert done.status == 2
    assert said in done.err


def test_auto_mask_reads_the_subject_shows_it_on_the_sheet_and_is_repeated(generate, jedi, tmp_path) -> None:
    ball = tmp_path / "ball.png"
    ball_on_a_lawn(128, 128, (32, 40, 96, 104)).save(ball)
    (found,) = subject_masks([ball_on_a_lawn(128, 128, (32, 40, 96, 104))])
    Image.fromarray(found).save(tmp_path / "found.png")
    words = ("--size", 64, "--coupling", "cached", "--reference", ball)
    drawn = generate(*words, "--mask", tmp_path / "found.png", "--out", tmp_path / "drawn")
    assert drawn.status == 0, drawn.err
    auto = generate(*words, "--auto-mask", "--out", tmp_path / "auto")
    assert auto.status == 0, auto.err
    assert made(tmp_path / "auto") == made(tmp_path / "drawn")
    settings = settings_of(tmp_path / "auto")
    assert settings["options"]["auto_mask"] is True
    assert "mask" not in settings["references"][0]
    sheets = [Image.open(tmp_path / name / "sheet.png").tobytes() for name in ("auto", "drawn")]
    assert sheets[0] == sheets[1]
    again = jedi("generate", "--from", tmp_path / "auto" / "settings.json", "--out", tmp_path / "again")
    assert again.status == 0, again.err
    assert made(tmp_path / "again") == made(tmp_path / "auto")
