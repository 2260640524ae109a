"""`jedi library` from photos to pictures."""

import json
import shutil

import pytest
from PIL import Image


@pytest.fixture
def library(jedi, photo, tmp_path):
    for name in ("rex/1.png", "rex/2.png", "bo/1.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, path)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photos" / "rex" / "2.png")
    (tmp_path / "photos" / "rex" / "3.png").write_bytes(b"nothing")
    (tmp_path / "photos" / "rex" / "1.txt").write_text("rex, asleep\n")
    folder = tmp_path / "library"
    words = ("library", "add", tmp_path / "photos", "--library", folder, "--encoder", "toybox")
    done = jedi(*words)
    assert done.status == 0, done.err
    assert "3 photos are new, 0 files were known" in done.out
    assert "1 files are refused" in done.out
    assert "0 photos are new, 4 files were known" in jedi(*words).out
    return folder


def test_a_prompt_finds_references_and_pictures_are_made_of_them(
    library, jedi, joint_model, tmp_path
) -> None:
    shown = jedi("library", "show", library).out
    assert "2  rex" in shown
    assert "3.png is not a picture" in shown
    prompt = "rex at the lake"
    found = jedi("library", "search", library, "--prompt", prompt).out.splitlines()
    assert len(found) == 2
    like = jedi("library", "search", library, "--like", tmp_path / "photos" / "rex" / "2.png", "--count", 1)
    assert like.out.split()[0].endswith("rex/2.png")
    words = ("--model", joint_model, "--steps", 1, "--size", 32, "--device", "cpu")
    done = jedi("generate", "--library", library, "--prompt", prompt, "--out", tmp_path / "out", *words)
    assert done.status == 0, done.err
    chosen = [line.split()[1] for line in done.out.splitlines() if line.startswith("Reference:")]
    assert chosen == [line.split()[0] for line in found]
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["options"]["reference"] == chosen
    assert sorted(settings["options"]["reference_prompt"]) == ["rex", "rex, asleep"]
    again = jedi("generate", "--from", tmp_path / "out" / "settings.json", "--out", tmp_path / "again")
    assert again.status == 0, again.err
    name = "rex-at-the-lake_0.png"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    job = {"library": library.name, "library_photos": 1, "prompt": ["bo"], "steps": 1, "size": 32}
    lines = [job, job | {"prompt": ["a cat"]}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = jedi("batch", tmp_path / "jobs.jsonl", "--model", joint_model, "--out", tmp_path / "made")
    assert (done.status, (tmp_path / "made" / "00001" / "bo_0.png").exists()) == (1, True)
    assert "line 2: The prompt 'a cat' names no subject of the library (bo, rex)" in done.err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("generate", "--prompt", "rex", "--reference", "a.png", "--out", "o"), 2, "Both --library and"),
        (("generate", "--prompt", "a cat", "--out", "o"), 2, "names no subject of the library (bo, rex)"),
        (("generate", "--prompt", "rex", "--library-subject", "tom", "--out", "o"), 2, "no photo of 'tom'"),
        (("library", "add", ".", "--encoder", "lite2"), 2, "made with the encoder toybox"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(library, jedi, words, status, said) -> None:
    done = jedi(*words, "--library", library)
    assert (done.status, said in done.err) == (status, True), done.err


def test_a_folder_that_is_no_library_and_a_search_for_nothing(library, jedi, tmp_path) -> None:
    done = jedi("library", "search", tmp_path, "--prompt", "rex")
    assert (done.status, "is no library" in done.err) == (1, True)
    done = jedi("library", "search", library)
    assert (done.status, "--prompt WORDS or --like PHOTO" in done.err) == (2, True)
    done = jedi("library", "add", tmp_path / "nowhere", "--library", tmp_path / "new")
    assert done.status == 1
