"""`--subject` and `--region`: which part of a picture reads which references."""

import json

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.references import Reference, placed, visibility_of

TWO = ("--subject", 0, "--region", "0,0,0.5,1", "--region", "0.5,0,1,1")


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.png"
    values = np.random.default_rng(1).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(values).resize((48, 48), Image.Resampling.BICUBIC).save(path)
    return path


def test_each_subject_is_read_in_its_part_and_settings_repeat_it(
    generate, jedi, photo, other, tmp_path
) -> None:
    words = ("--reference", photo, *TWO[:2], "--reference", other, "--subject", 1)
    made = {}
    for name, regions in (("left", TWO[2:]), ("right", ("--region", "0.5,0,1,1", "--region", "0,0,0.5,1"))):
        done = generate(*words, *regions, "--out", tmp_path / name)
        assert done.status == 0, done.err
        made[name] = next((tmp_path / name).glob("a-robot*.png")).read_bytes()
    assert made["left"] != made["right"]
    options = json.loads((tmp_path / "left" / "settings.json").read_text())["options"]
    assert (options["subject"], options["region"]) == ([0, 1], ["0,0,0.5,1", "0.5,0,1,1"])
    again = jedi("generate", "--from", tmp_path / "left" / "settings.json", "--out", tmp_path / "again")
    assert again.status == 0, again.err
    assert next((tmp_path / "again").glob("a-robot*.png")).read_bytes() == made["left"]
    assert generate("--out", tmp_path / "plain").status == 0
    plain = json.loads((tmp_path / "plain" / "settings.json").read_text())["options"]
    assert {"subject", "region"}.isdisjoint(plain)


def test_references_of_one_subject_and_no_region_are_read_as_ever() -> None:
    picture = Image.new("RGB", (8, 8))
    assert visibility_of([Reference(picture), Reference(picture)], lambda each: []) == [None, None]
    one, two = visibility_of([Reference(picture), Reference(picture, subject=1)], lambda each: [])
    assert (one.subject, one.box, two.subject) == (0, None, 1)


def test_a_placed_subject_stands_in_its_region_as_large_as_fits() -> None:
    values = np.zeros((100, 100, 3), dtype=np.uint8)
    values[10:30, 50:60] = (200, 30, 30)
    mask = Image.fromarray(((values[..., 0] > 0) * 255).astype(np.uint8))
    picture, where = placed(Image.fromarray(values), mask, (0.5, 0.0, 1.0, 1.0))
    left, top, right, bottom = where.getbbox()
    assert (right - left, bottom - top) == (45, 90)  # 90% of the region, by its width or its height
    assert (left, top, right, bottom) == (52, 5, 97, 95)
    shown = np.asarray(picture)
    assert (shown[20:80, 60:90] == (200, 30, 30)).all()
    assert (shown[:, :50] == 255).all()
    empty = Image.new("L", (100, 100))
    assert placed(picture, empty, (0, 0, 1, 1)) == (picture, empty)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--region", "0,0,1.2,1"), "The region 0,0,1.2,1 is no part of a picture"),
        (("--region", "0.5,0,0.5,1"), "The region 0.5,0,0.5,1 is no part of a picture"),
        (("--region", "nan,0,0.5,1"), "is no part of a picture"),
        (("--region", "left"), "The region 'left' is not left,top,right,bottom"),
        (("--region", "0,0,1,1", "--region", "0,0,1,1"), "subject 1, which no reference shows"),
        (("--subject", 1, "--region", "0,0,1,1"), "subject 0, which no reference shows"),
        (("--subject", -1), "--subject"),
        (("--place-subjects",), "give --region, or leave it out"),
        (("--region", "0,0,1,1", "--attention-map", "0.5,0.5"), "leave --subject and --region out"),
    ],
)
def test_what_is_no_region_is_said_in_a_sentence(generate, photo, words, said) -> None:
    done = generate("--reference", photo, *words)
    assert done.status == 2
    assert said in done.err


def test_a_subject_without_a_region_is_named(generate, photo, other) -> None:
    done = generate(
        *("--reference", photo, "--region", "0,0,1,1", "--reference", other, "--subject", 1),
    )
    assert (done.status, "Subject 1 has no region" in done.err) == (2, True), done.err
