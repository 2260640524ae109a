"""`jedi generate` from photo to pictures: names, settings, exact repeats, and that nothing is overwritten."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.cli import generate as command
from jedi_diffusion.files import slug, slugs
from jedi_diffusion.pictures import read_parameters


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_pictures_sheet_and_settings(generate, photo, tmp_path) -> None:
    done = generate("--prompt", "A robot, on the beach!", "--prompt", "a robot", "--images-per-prompt", 2)
    assert done.status == 0, done.err
    out = tmp_path / "out"
    pictures = ["a-robot-on-the-beach_0.png", "a-robot-on-the-beach_1.png", "a-robot_0.png", "a-robot_1.png"]
    assert names(out) == [*pictures, "settings.json", "sheet.png"]
    for name in pictures:
        with Image.open(out / name) as picture:
            assert (picture.mode, picture.size) == ("RGB", (32, 32))
        assert name in done.out
    settings = json.loads((out / "settings.json").read_text())
    options = settings["options"]
    assert (options["size"], options["coupling"]) == (32, "joint")
    assert (options["device"], options["dtype"]) == ("cpu", "float32")
    assert options["image_guidance"] == options["guidance"] == 3.0
    assert settings["references"][0]["path"] == str(photo)
    assert len(settings["model"]["fingerprint"]) == 64
    assert settings["model"]["scheduler"] == "DDIMScheduler"
    assert [row["seed"] for row in settings["pictures"]] == [0, 1, 0, 1]
    assert "torch" in settings["versions"]


def test_pictures_carry_their_parameters_but_no_folders(generate, tmp_path) -> None:
    assert generate("--seed", 7).status == 0
    path = tmp_path / "out" / "a-robot-on-the-beach_7.png"
    parameters = read_parameters(path)
    assert parameters["prompt"] == "a robot on the beach"
    assert parameters["seed"] == 7
    assert parameters["options"]["steps"] == 2
    assert parameters["references"] == [{}]
    assert str(tmp_path) not in json.dumps(parameters)


def test_references_are_named_only_where_that_is_asked_for(generate, photo, tmp_path) -> None:
    digest = hashlib.sha256(photo.read_bytes()).hexdigest()
    assert generate("--seed", 7).status == 0
    out = tmp_path / "out"
    for path in out.iterdir():
        data = path.read_bytes()
        assert digest.encode() not in data
        assert (photo.name.encode() in data) == (path.name == "settings.json")
    (row,) = json.loads((out / "settings.json").read_text())["references"]
    assert row.keys() == {"path", "salt", "digest"}
    assert generate("--seed", 7, "--overwrite", "--record-names").status == 0
    parameters = read_parameters(out / "a-robot-on-the-beach_7.png")
    assert parameters["references"] == [{"file": photo.name, "sha256": digest}]


@pytest.mark.parametrize("scheduler", ["ddim", "dpm++", "euler", "lcm"])
def test_repeats_bit_for_bit_from_its_settings(generate, jedi, scheduler, tmp_path) -> None:
    first = generate(
        *("--prompt", "a robot", "--prompt", "a dog", "--prompt", "a cup", "--batch", 2, "--seed", 5),
        *("--scheduler", scheduler, "--guidance-mode", "text_first", "--image-guidance", 1.5, "--steps", 3),
        *("--reference-prompt", "a thing", "--fit", "pad", "--size", 24),
    )
    assert first.status == 0, first.err
    again = jedi("generate", "--from", tmp_path / "out" / "settings.json", "--out", tmp_path / "again")
    assert again.status == 0, again.err
    for name in names(tmp_path / "out"):
        if name != "settings.json":
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    old, new = (json.loads((tmp_path / each / "settings.json").read_text()) for each in ("out", "again"))
    assert old["options"] | {"out": new["options"]["out"]} == new["options"]


def test_options_beside_from_change_the_run(generate, jedi, tmp_path) -> None:
    generate("--prompt", "a robot")
    settings = tmp_path / "out" / "settings.json"
    done = jedi("generate", "--from", settings, "--prompt", "a dog", "--out", tmp_path / "other")
    assert done.status == 0, done.err
    assert names(tmp_path / "other") == ["a-dog_0.png", "settings.json", "sheet.png"]


def test_a_changed_photo_or_model_stops_a_repeat(generate, jedi, photo, tmp_path) -> None:
    assert generate().status == 0
    settings = tmp_path / "out" / "settings.json"
    recorded = json.loads(settings.read_text())
    recorded["model"]["fingerprint"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(recorded))
    done = jedi("generate", "--from", tmp_path / "other.json")
    assert done.status == 1
    assert "weights" in done.err
    Image.new("RGB", (8, 8)).save(photo)
    done = jedi("generate", "--from", settings)
    assert done.status == 1
    assert "photo.png has changed" in done.err


def test_bad_settings_are_refused(jedi, tmp_path) -> None:
    path = tmp_path / "settings.json"
    whole = {"model": {"name": "", "fingerprint": ""}, "references": [], "threads": 1, "versions": {}}
    options = [{"colour": 1}, {"steps": "many"}, {"coupling": "loose"}, 3]
    texts = [json.dumps({**whole, "options": each}) for each in options]
    texts.append(json.dumps({**whole, "options": {}, "threads": "two"}))
    for text in ["", "[]", "{", '{"options": {}}', *texts]:
        path.write_text(text)
        done = jedi("generate", "--from", path)
        assert done.status == 2, text
        assert "settings" in done.err or "recorded" in done.err
    assert jedi("generate", "--from", tmp_path / "missing.json").status == 2


def test_existing_files_are_kept(generate, tmp_path) -> None:
    out = tmp_path / "out"
    generate("--seed", 1)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert generate("--seed", 1, "--steps", 3).status == 0
    assert generate("--seed", 2).status == 0
    assert all((out / name).read_bytes() == data for name, data in before.items())
    second = ["a-robot-on-the-beach_1-2.png", "settings-2.json", "sheet-2.png"]
    third = ["a-robot-on-the-beach_2-3.png", "settings-3.json", "sheet-3.png"]
    assert names(out) == sorted([*before, *second, *third])
    recorded = json.loads((out / "settings-2.json").read_text())
    assert recorded["pictures"][0]["file"] == "a-robot-on-the-beach_1-2.png"
    assert generate("--seed", 1, "--steps", 3, "--overwrite").status == 0
    changed = (out / "a-robot-on-the-beach_1.png").read_bytes()
    assert changed != before["a-robot-on-the-beach_1.png"]
    assert changed == (out / "a-robot-on-the-beach_1-2.png").read_bytes()


def test_a_picture_depends_on_its_prompt_and_seed_alone(generate, tmp_path) -> None:
    generate("--prompt", "a dog", "--prompt", "a robot", "--images-per-prompt", 2, "--batch", 3)
    generate("--prompt", "a robot", "--seed", 1, "--out", tmp_path / "alone")
    together, alone = (
        np.asarray(Image.open(tmp_path / folder / "a-robot_1.png")).astype(int) for folder in ("out", "alone")
    )
    assert np.abs(together - alone).max() <= 1


def test_joint_targets_make_one_set_even_without_reference(jedi, joint_model, tmp_path) -> None:
    done = jedi(
        *("generate", "--model", joint_model, "--out", tmp_path / "out", "--steps", 2, "--joint-targets"),
        *("--prompt", "a robot", "--prompt", "a robot in snow"),
    )
    assert done.status == 0, done.err
    assert names(tmp_path / "out") == ["a-robot-in-snow_1.png", "a-robot_0.png", "settings.json", "sheet.png"]


def test_interrupt_keeps_what_is_made(generate, tmp_path, monkeypatch) -> None:
    real, calls = command.sample, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(command, "sample", stopping)
    done = generate("--images-per-prompt", 4, "--batch", 2)
    assert done.status == 130
    assert "2 of 4 pictures" in done.err
    kept = ["a-robot-on-the-beach_0.png", "a-robot-on-the-beach_1.png", "settings.json"]
    assert names(tmp_path / "out") == kept


def test_a_single_image_model_runs_and_says_that_it_is_untrained(generate, tmp_path_factory) -> None:
    from tests.helpers.small_pipelines import save_sd14

    done = generate("--model", save_sd14(tmp_path_factory.mktemp("sd14")), "--size", 64)
    assert done.status == 0, done.err
    assert "untrained" in done.err


def test_file_names() -> None:
    assert slug("A robot, on the  beach!") == "a-robot-on-the-beach"
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("???") == "picture"
    assert slug("Ein Bär auf dem Eis") == "ein-bär-auf-dem-eis"
    assert len(slug("word " * 100)) <= 48
    assert len(slug("x" * 500)) == 48
    assert slugs(["a dog", "A dog!", "a cat"]) == ["a-dog-p1", "a-dog-p2", "a-cat-p3"]
