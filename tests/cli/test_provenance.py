"""`jedi provenance`, on pictures of each way out of the program and on others."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.pictures import lossy_bytes, png_bytes
from jedi_diffusion.provenance import examine
from jedi_diffusion.watermark import marked
from jedi_toybox import world
from tests.helpers.certificates import make_signer


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    spec = world.sample_picture(world.sample_subject(2, split="held_out"), 2)
    return Image.fromarray(world.render([spec]).pictures[0].permute(1, 2, 0).numpy())


def test_a_generated_picture_says_all_of_it(generate, jedi, tmp_path) -> None:
    signer = make_signer(tmp_path / "signer")
    assert generate("--content-credentials", *signer.files, "--size", "64").status == 0
    file = tmp_path / "out" / "a-robot-on-the-beach_0.png"
    done = jedi("provenance", file, "--json")
    (found,) = json.loads(done.out)
    assert found["manifest"]["state"] == "Valid"
    assert (found["manifest"]["signer"], found["manifest"]["time"]) == ("signer", None)
    assert found["manifest"]["action"] == "made with jedi-diffusion, model joint"
    assert any("untrusted" in each.lower() for each in found["manifest"]["faults"])
    assert found["watermark"]["found"]
    assert (found["parameters"]["prompt"], found["parameters"]["seed"]) == ("a robot on the beach", 0)
    lines = jedi("provenance", file).out.splitlines()
    assert lines[0] == str(file)
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "Manifest",
        "Time stamp",
        "Watermark",
        "Software",
        "Parameters",
    ]
    assert "signed by signer" in lines[1]


def test_a_changed_picture_is_told(generate, jedi, tmp_path) -> None:
    signer = make_signer(tmp_path / "signer")
    assert generate("--content-credentials", *signer.files, "--size", "64").status == 0
    file = tmp_path / "out" / "a-robot-on-the-beach_0.png"
    file.write_bytes(file.read_bytes() + b"one more")
    found = examine(file)
    assert found.manifest is not None
    assert found.manifest.state == "Invalid"
    assert found.manifest.faults


def test_without_a_watermark_there_is_none(generate, jedi, tmp_path) -> None:
    assert generate("--no-watermark", "--size", "64").status == 0
    file = tmp_path / "out" / "a-robot-on-the-beach_0.png"
    found = examine(file)
    assert not found.watermark.found
    assert found.manifest is None
    assert found.parameters["options"]["watermark"] is False
    repeated = jedi("generate", "--from", tmp_path / "out" / "settings.json", "--out", tmp_path / "again")
    assert repeated.status == 0, repeated.err
    assert np.array_equal(Image.open(file), Image.open(tmp_path / "again" / file.name))


def test_a_mark_outlives_the_file_it_was_in(picture, jedi, tmp_path) -> None:
    made = marked(picture)
    for name, data in (
        ("a.jpg", lossy_bytes(made, "jpeg", 75, "made with jedi-diffusion, model toybox")),
        ("b.webp", lossy_bytes(made, "webp", 75, "made with jedi-diffusion, model toybox")),
        ("c.png", png_bytes(made)),
    ):
        (tmp_path / name).write_bytes(data)
    found = json.loads(
        jedi("provenance", *(tmp_path / name for name in ("a.jpg", "b.webp", "c.png")), "--json").out
    )
    assert all(each["watermark"]["found"] for each in found)
    assert [each["software"] for each in found] == ["made with jedi-diffusion, model toybox"] * 2 + [None]


def test_other_pictures_say_nothing_and_others_are_no_pictures(picture, jedi, tmp_path) -> None:
    picture.save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("c2pa")
    done = jedi("provenance", tmp_path / "plain.png")
    said = [line.split(":", 1)[1].strip() for line in done.out.splitlines()[1:]]
    assert [each.split(" ")[0] for each in said] == ["none"] * 5
    wrong = jedi("provenance", tmp_path / "text.png")
    assert (wrong.status, wrong.out) == (1, "")
    assert "is not a picture" in wrong.err
    assert jedi("provenance").status == 2


def test_a_manifest_that_nothing_here_reads_is_named(picture, tmp_path, monkeypatch) -> None:
    data = io.BytesIO(png_bytes(picture))
    (tmp_path / "signed.png").write_bytes(data.getvalue() + b"c2pa")
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = examine(tmp_path / "signed.png")
    assert found.manifest is None
    assert "pip install 'jedi-diffusion[credentials]'" in (found.remark or "")
