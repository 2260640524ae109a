"""`jedi demo --photos`: one's own photos beside new pictures."""

from pathlib import Path

import pytest
from PIL import Image

from jedi_diffusion.cli.demo_photos import NAME, SCENES, find_photos, photo_rows
from jedi_toybox import world


def test_demo_shows_photos_beside_new_pictures(jedi, joint_model, photo_folder, tmp_path) -> None:
    words = ["demo", "--photos", photo_folder, "--model", joint_model, "--steps", 1, "--device", "cpu"]
    done = jedi(*words, "--prompts", 2, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    made = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = ("reference-1", "a-toy-on-the-beach", "a-toy-in-the-snow")
    assert made == {"demo.png", *(f"{row}-{name}.png" for row in (1, 2) for name in pictures)}
    with Image.open(tmp_path / "out" / "1-reference-1.png") as shown:
        assert shown.size == (32, 32)
    with Image.open(tmp_path / "out" / "demo.png") as sheet:
        first = sheet.tobytes()
    again = jedi(*words, "--prompts", 2, "--out", tmp_path / "out")
    assert again.status == 0
    with Image.open(tmp_path / "out" / "demo-2.png") as sheet:
        assert sheet.tobytes() == first
    own = jedi(*words, "--prompt", "a robot on mars", "--out", tmp_path / "own")
    assert own.status == 0
    assert (tmp_path / "own" / "2-a-robot-on-mars.png").is_file()


def test_photos_of_a_folder_without_subfolders_are_all_taken(photo) -> None:
    (photo.parent / "b.JPG").write_bytes(photo.read_bytes())
    (photo.parent / "notes.txt").write_text("no picture")
    assert [path.name for path in find_photos(photo.parent)] == ["b.JPG", "photo.png"]
    assert [row.name for row in photo_rows(photo.parent, 3, ())] == ["b", "photo"]


def test_masks_are_no_photos(photo, tmp_path) -> None:
    """`jedi toybox` and `jedi data unpack` write 0.mask.png beside 0.png, which comes before it by name."""
    home = tmp_path / "sets" / "red_cup"
    home.mkdir(parents=True)
    for name in ("0.png", "0.mask.png"):
        (home / name).write_bytes(photo.read_bytes())
    assert find_photos(home) == find_photos(home.parent) == [home / "0.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--photos", "nowhere"], "nowhere"),
        (["--photos", "empty"], "empty holds no pictures"),
        (["--prompt", "a toy"], "give their folder with --photos"),
        (["--photos", "empty", "--prompts", "9"], "--prompts is 9"),
    ],
)
def test_demo_refuses_what_it_cannot_show(jedi, joint_model, tmp_path, monkeypatch, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    done = jedi("demo", "--model", joint_model, "--out", "out", *words)
    assert done.status == 2
    assert message in done.err
    assert not Path("out").exists()


def test_scenes_for_photos_are_words_of_the_world() -> None:
    assert set(SCENES) <= set(world.SCENES)
    assert set(NAME.split()) <= set(world.vocabulary())
