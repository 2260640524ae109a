"""Names in one order, text without marks, and results that replace older ones whole or not at all."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from jedi_diffusion.errors import DataError, OutputError, UsageError
from jedi_diffusion.files import (
    decode_text,
    file_lock,
    files_in,
    folders_in,
    json_bytes,
    lines_of,
    natural_order,
    plain_name,
    read_text,
    replaced_folder,
)

HOLDER = """
import sys
from pathlib import Path
from jedi_diffusion.files import file_lock
with file_lock(Path(sys.argv[1]), wait=False) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def fill(path: Path, text: str) -> None:
    with replaced_folder(path) as partial:
        (partial / "part").mkdir()
        (partial / "part" / "text").write_text(text)


def test_a_folder_is_made_with_its_parents_and_then_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "model"
    fill(path, "first")
    (path / "old").write_text("only in the first")
    fill(path, "second")
    assert (path / "part" / "text").read_text() == "second"
    assert [each.name for each in path.iterdir()] == ["part"]
    assert [each.name for each in path.parent.iterdir()] == ["model"]


def fail(path: Path, fault: BaseException) -> None:
    with replaced_folder(path) as partial:
        (partial / "text").write_text("half")
        raise fault


@pytest.mark.parametrize("fault", [ValueError("mine"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_the_older_folder_stays_where_filling_fails(tmp_path: Path, fault: BaseException) -> None:
    path = tmp_path / "model"
    fill(path, "first")
    with pytest.raises(OutputError if isinstance(fault, OSError) else type(fault)):
        fail(path, fault)
    assert (path / "part" / "text").read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_the_older_folder_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rename = tmp_path / "model", Path.rename
    fill(path, "first")

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith("-partial"):
            raise OSError(errno.EIO, "input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="input/output error"):
        fill(path, "second")
    assert (path / "part" / "text").read_text() == "first"


def test_what_a_killed_run_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".model-partial").mkdir()
    (tmp_path / ".model-partial" / "half").write_text("half")
    fill(tmp_path / "model", "whole")
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "half").exists()


def test_a_lock_is_held_once_and_by_no_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with file_lock(path, wait=False) as first, file_lock(path, wait=False) as second:
        assert (first, second) == (True, False)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        with file_lock(path, wait=False) as held:
            assert not held
        other.kill()
        with file_lock(path, wait=True) as held:
            assert held


def test_a_lock_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="absent/lock cannot be written"),
        file_lock(tmp_path / "absent" / "lock", wait=False),
    ):
        pass


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputError, match="lock cannot be locked"), file_lock(tmp_path / "lock", wait=True):
        pass


def test_digits_are_ordered_by_their_value_folder_by_folder() -> None:
    names = ["a/9.png", "a/10.png", "a-b/1.png", "b1/2", "b01/1", "b2/1", "b10/1", "é1", "é2", "é10"]
    mixed = [unicodedata.normalize("NFD", name) if name == "é2" else name for name in names]
    assert sorted({*mixed}, key=natural_order) == [
        *("a/9.png", "a/10.png", "a-b/1.png", "b01/1", "b1/2", "b2/1", "b10/1", "é1"),
        *(mixed[8], "é10"),
    ]


def test_what_the_system_keeps_in_folders_is_hidden(tmp_path: Path) -> None:
    for name in (".git", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "a10", "a9"):
        (tmp_path / name).mkdir()
    for name in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini", "2", "10"):
        (tmp_path / name).touch()
    assert [each.name for each in folders_in(tmp_path)] == ["a9", "a10"]
    assert [each.name for each in files_in(tmp_path)] == ["2", "10"]
    with pytest.raises(DataError, match="none cannot be listed"):
        files_in(tmp_path / "none")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_comes_without_marks_and_with_plain_line_ends(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "text").write_bytes("an été\r\non\u2028the beach\r".encode(encoding))
    assert read_text(tmp_path / "text") == "an été\non\u2028the beach\n"


def test_text_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none cannot be read: No such file"):
        read_text(tmp_path / "none", UsageError)
    with pytest.raises(
        DataError, match=r"notes is not UTF-8 text \(byte 0xe9 at place 3\): save it as UTF-8"
    ):
        decode_text("café".encode("latin-1"), "notes")


def test_names_that_are_not_utf8_can_be_written_and_found_again() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert plain_name(name) == r"caf\xe9"
    assert plain_name(unicodedata.normalize("NFD", "café")) == "café"
    assert json.loads(json_bytes({"file": name, "text": "größer"}).decode()) == {
        "file": name,
        "text": "größer",
    }


def test_lines_end_at_line_breaks_and_at_nothing_else():
    """A sentence from a web page may hold any of these; str.splitlines would cut it there."""
    odd = "a cow\u2028on\u2029the\x85beach\x0bin\x0cthe\x1csnow"
    assert lines_of(f"{odd}\na\r\n\rb\n") == [odd, "a", "", "b"]
    assert lines_of("a\n\n") == ["a", ""]
    assert lines_of(odd) == [odd]
