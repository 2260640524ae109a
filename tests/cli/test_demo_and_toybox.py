"""`jedi demo` and `jedi toybox`: what they write, twice."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_demo_shows_references_beside_new_pictures(jedi, joint_model, tmp_path) -> None:
    words = ("demo", "--model", joint_model, "--subjects", 2, "--prompts", 2, "--steps", 2, "--device", "cpu")
    done = jedi(*words, "--out", tmp_path / "a")
    assert done.status == 0, done.err
    assert str(tmp_path / "a" / "demo.png") in done.out
    made = files(tmp_path / "a")
    assert len(made) == 1 + 2 * (1 + 2)
    assert {"demo.png", "1-reference-1.png", "2-reference-1.png"} <= made.keys()
    with Image.open(tmp_path / "a" / "demo.png") as sheet:
        assert sheet.width > 3 * 256
    jedi(*words, "--out", tmp_path / "b")
    assert files(tmp_path / "b") == made
    jedi(*words, "--out", tmp_path / "a", "--seed", 3)
    assert files(tmp_path / "a").items() > made.items()
    assert "demo-2.png" in files(tmp_path / "a")


def test_demo_refuses_numbers_out_of_range(jedi, tmp_path) -> None:
    for words in (("--subjects", 0), ("--guidance", "nan"), ("--steps", 10**6), ("--model", "nothing")):
        done = jedi("demo", "--out", tmp_path / "out", *words)
        assert done.status in (1, 2)
        assert not (tmp_path / "out").exists()


def test_toybox_writes_sets(jedi, tmp_path) -> None:
    words = ("toybox", "--sets", 2, "--size", 3, "--resolution", 32, "--seed", 5, "--split", "held_out")
    done = jedi(*words, "--out", tmp_path / "a")
    assert done.status == 0, done.err
    folders = sorted(path for path in (tmp_path / "a").iterdir() if path.is_dir())
    assert [path.name[:5] for path in folders] == ["00005", "00006"]
    for folder in folders:
        record = json.loads((folder / "set.json").read_text())
        assert len(record["captions"]) == 3
        assert record["split"] == "held_out"
        for number in range(3):
            with Image.open(folder / f"{number}.png") as picture:
                assert (picture.mode, picture.size) == ("RGB", (32, 32))
            mask = np.asarray(Image.open(folder / f"{number}.mask.png"))
            assert set(np.unique(mask)) == {0, 255}
    made = files(tmp_path / "a")
    assert "sheet.png" in made
    jedi(*words, "--out", tmp_path / "b")
    assert files(tmp_path / "b") == made
    jedi(*words, "--out", tmp_path / "a")
    assert files(tmp_path / "a").items() > made.items()
    assert (tmp_path / "a" / "sheet-2.png").exists()


def test_toybox_refuses_numbers_out_of_range(jedi, tmp_path) -> None:
    for words in (("--sets", 0), ("--size", 99), ("--resolution", 5), ("--split", "test")):
        assert jedi("toybox", "--out", tmp_path / "out", *words).status == 2
    assert not (tmp_path / "out").exists()
