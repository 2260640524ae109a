"""`jedi generate --attention-map`: figures beside the same pictures, exact repeats, points and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion import models
from jedi_diffusion.cli.attention_map import read_point
from jedi_diffusion.errors import UsageError
from jedi_diffusion.pictures import read_parameters

FIGURE = "a-robot-on-the-beach_0-attention.png"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_adds_a_figure_and_leaves_the_pictures_as_they_are(generate, tmp_path, coupling) -> None:
    plain = generate("--coupling", coupling, "--images-per-prompt", 3, "--batch", 2)
    assert plain.status == 0, plain.err
    words = ("--attention-map", "12,30", "--out", tmp_path / "maps")
    done = generate("--coupling", coupling, "--images-per-prompt", 3, "--batch", 2, *words)
    assert done.status == 0, done.err
    figures = [f"a-robot-on-the-beach_{seed}-attention.png" for seed in range(3)]
    assert names(tmp_path / "maps") == sorted([*names(tmp_path / "out"), *figures])
    for name in names(tmp_path / "out"):
        if name != "settings.json":
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "maps" / name).read_bytes(), name
    settings = json.loads((tmp_path / "maps" / "settings.json").read_text())
    assert settings["options"]["attention_map"] == "12,30"
    assert [row["attention_map"] for row in settings["pictures"]] == figures
    assert "attention_map" not in json.loads((tmp_path / "out" / "settings.json").read_text())["pictures"][0]
    parameters = read_parameters(tmp_path / "maps" / figures[1])
    assert (parameters["seed"], parameters["attention_map"]) == (1, "12,30")
    assert str(tmp_path) not in json.dumps(parameters)
    for figure in figures:
        assert figure in done.out
    first, second = (np.asarray(Image.open(tmp_path / "maps" / name)) for name in figures[:2])
    assert first.shape == second.shape
    assert (first != second).any()


def test_a_run_is_repeated_with_its_maps_and_changed_by_another_point(generate, jedi, tmp_path) -> None:
    assert generate("--attention-map", "0.4,0.9").status == 0
    settings = tmp_path / "out" / "settings.json"
    again = jedi("generate", "--from", settings, "--out", tmp_path / "again")
    assert again.status == 0, again.err
    other = jedi("generate", "--from", settings, "--out", tmp_path / "other", "--attention-map", "0.1,0.9")
    assert other.status == 0, other.err
    first, same, moved = ((tmp_path / each / FIGURE).read_bytes() for each in ("out", "again", "other"))
    assert first == same
    assert first != moved
    picture = "a-robot-on-the-beach_0.png"
    assert (tmp_path / "out" / picture).read_bytes() == (tmp_path / "other" / picture).read_bytes()


def test_a_figure_is_never_overwritten(generate, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FIGURE).write_bytes(b"mine")
    assert generate("--attention-map", "0,0").status == 0
    assert (tmp_path / "out" / FIGURE).read_bytes() == b"mine"
    assert (tmp_path / "out" / "a-robot-on-the-beach_0-attention-2.png").is_file()


def test_points_in_pixels_and_fractions() -> None:
    assert read_point("64,80", 128) == (64.5 / 128, 80.5 / 128)
    assert read_point(" 0 , 127 ", 128) == (0.5 / 128, 127.5 / 128)
    assert read_point("0.5,0.62", 128) == (0.5, 0.62)
    assert read_point("1.0,0", 128) == (1.0, 0.0)
    assert read_point("5000,0", None) == (0.0, 0.0)  # until the size is known


@pytest.mark.parametrize(
    "text",
    ["", "5", "5,", "a,b", "1,2,3", "-1,5", "0.5,10", "1.01,0.5", "1..2,3", "nan,1", "128,0", "0,9999"],
)
def test_points_that_are_none_or_lie_outside(text) -> None:
    with pytest.raises(UsageError, match="--attention-map") as found:
        read_point(text, 128)
    assert str(found.value).count(". ") == 0


def test_refusals_come_before_the_model_is_loaded(generate, jedi, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(models, "load_model", lambda *_: pytest.fail("the model was loaded"))
    for words, reason in [
        (("--attention-map", "middle"), "must be a point"),
        (("--attention-map", "0.5,1.5"), "outside"),
        (("--attention-map", "24,0", "--size", 24), "0,0 to 23,23"),
    ]:
        done = generate(*words)
        assert done.status == 2
        assert reason in done.err
    done = jedi(
        *("generate", "--out", tmp_path / "out", "--joint-targets", "--attention-map", "0.5,0.5"),
        *("--prompt", "a robot", "--prompt", "a dog"),
    )
    assert done.status == 2
    assert "--reference" in done.err
    assert not (tmp_path / "out").exists()


def test_refusals_that_need_the_model(generate, tmp_path) -> None:
    for words, reason in [(("32,0",), "0,0 to 31,31"), (("0.5,0.5", "--guidance", 0), "scales of guidance")]:
        done = generate("--attention-map", *words)
        assert done.status == 2
        assert reason in done.err
        assert done.err.strip().count("\n") == 0 or "step" in done.err
        assert not list(tmp_path.glob("out/*attention*"))
