"""The public packages: checked, read without running anything, and named in captions without their looks."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from jedi_diffusion.errors import DataError, UsageError
from jedi_showroom import emoji, furniture, packages, subjects
from jedi_showroom.places import load_places
from jedi_showroom.subjects import Subject
from jedi_toybox.subjects import HELD_OUT_CLASSES


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def debian(files: dict[str, bytes]) -> bytes:
    """A Debian package as `ar` writes it: every member has a header of 60 bytes and an even length."""
    out = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", tar(files, "w:xz"))):
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_missing_packages_are_named_with_their_commands(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lacks 5 packages.*npm pack @pmndrs/assets@1\.7\.0"):
        packages.require(tmp_path)


def test_a_package_with_another_digest_is_refused(tmp_path: Path) -> None:
    (tmp_path / packages.EMOJI.file).write_bytes(b"other")
    with pytest.raises(DataError, match=r"not the emoji package.*npm pack"):
        packages.require(tmp_path, (packages.EMOJI,))
    right = replace(packages.EMOJI, sha256=hashlib.sha256(b"other").hexdigest())
    packages.require(tmp_path, (right,))


def test_wanted_members_are_read_from_every_kind_of_archive(tmp_path: Path) -> None:
    files = {"./x/a.sh3f": b"one", "x/b.txt": b"two"}
    (tmp_path / packages.FURNITURE.file).write_bytes(debian(files))
    assert dict(packages.members(tmp_path, packages.FURNITURE)) == {"x/a.sh3f": b"one"}
    (tmp_path / packages.EMOJI.file).write_bytes(tar({"package/assets/1f43b.webp": b"bear", "a.js": b""}))
    assert emoji.read_images(tmp_path) == {"1f43b": b"bear"}
    floor = "robosuite/models/assets/textures/clay.png"
    (tmp_path / packages.FLOORS.file).write_bytes(zipped({floor: b"png", "robosuite/run.py": b"boom"}))
    assert dict(packages.members(tmp_path, packages.FLOORS)) == {floor: b"png"}


def test_collections_unpack_inside_their_folder_only(tmp_path: Path) -> None:
    inside = zipped({"lamp/lamp.obj": b"v 0 0 0", "../escape.obj": b"x", furniture.CATALOGUE: b""})
    (tmp_path / packages.FURNITURE.file).write_bytes(debian({"usr/share/Some.sh3f": inside}))
    furniture.unpack(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "Some" / "lamp" / "lamp.obj").read_bytes() == b"v 0 0 0"
    assert not list(tmp_path.rglob("escape.obj"))


def test_the_catalogue_names_models_creators_and_licences(tmp_path: Path) -> None:
    text = (
        "name#1=Red desk lamp 02\nmodel#1=/s/lamp/lamp.obj\ncategory#1=Lights\ncreator#1=Ren\\u00e9\n"
        "name#2=Door\nmodel#2=/s/door.obj\ncategory#2=Doors and windows\ncreator#2=X\n"
    )
    for collection in ("BlendSwap-CC-0", "Scopia"):
        (tmp_path / collection).mkdir()
        (tmp_path / collection / furniture.CATALOGUE).write_text(text, encoding="latin-1")
    first, second = furniture.read_subjects(tmp_path)
    assert (first.noun, first.creator, first.licence) == ("desk lamp", "René", "CC0 1.0")
    assert (second.member, second.licence) == ("Scopia/s/lamp/lamp.obj", "CC-BY 3.0")


@pytest.mark.parametrize(
    ("name", "noun"), [("TIGER FACE", "tiger"), ("RED APPLE", "apple"), ("JACK-O-LANTERN", "jack o lantern")]
)
def test_nouns_of_emoji_tell_no_looks(name: str, noun: str) -> None:
    assert emoji.noun_of(name) == noun


@pytest.mark.parametrize(
    ("noun", "is_shown"), [("sitting female", False), ("ford focus", False), ("bus", True), ("teapot", True)]
)
def test_what_must_not_be_shown_is_left_out_with_a_reason(noun: str, is_shown: bool) -> None:
    thing = Subject("x/y", noun, "", "", "")
    assert bool(subjects.shown([thing])) is is_shown
    assert (subjects.excluded(thing) is None) is is_shown
    assert all(subjects.exclusions().values())


def test_one_noun_in_ten_is_held_out_whole() -> None:
    things = [Subject(f"a/{n}", f"thing {n}", "", "", "") for n in range(2000)]
    twins = [Subject(f"b/{n}", f"thing {n}", "", "", "") for n in range(2000)]
    share = sum(each.split == "held_out" for each in things) / len(things)
    assert 0.08 < share < 0.12
    assert [each.split for each in things] == [each.split for each in twins]
    assert {Subject("a/b", noun, "", "", "").split for noun in HELD_OUT_CLASSES} == {"held_out"}


def test_places_of_a_folder_without_the_floors_say_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"lacks 1 package of the showroom.* pip download --no-deps robosuite"
    ):
        load_places(tmp_path, tmp_path)
