"""Digests of files: read once, and again whenever a file is another one."""

import hashlib
import os
from pathlib import Path

import pytest

from jedi_diffusion.errors import PictureError
from jedi_diffusion.evaluation.digests import FileDigests

LONG_AGO = 1_000_000_000 * 10**9


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("jedi_diffusion.evaluation.digests.SETTLED", -(10**9))
    path = tmp_path / "a.png"
    path.write_bytes(b"first")
    return path


def test_a_file_is_read_once_over_all_runs(picture: Path, tmp_path: Path) -> None:
    record = tmp_path / "files.json"
    first = FileDigests(record)
    assert first.of(picture) == (hashlib.sha256(b"first").digest(), b"first")
    assert first.of(picture) == (hashlib.sha256(b"first").digest(), None)
    first.save()
    assert FileDigests(record).of(picture) == (hashlib.sha256(b"first").digest(), None)


def test_a_file_of_the_same_size_and_time_is_not_taken_for_the_old_one(picture: Path, tmp_path: Path) -> None:
    digests = FileDigests(tmp_path / "files.json")
    os.utime(picture, ns=(LONG_AGO, LONG_AGO))
    digests.of(picture)
    picture.write_bytes(b"other")
    os.utime(picture, ns=(LONG_AGO, LONG_AGO))
    assert digests.of(picture)[0] == hashlib.sha256(b"other").digest()


def test_a_file_that_was_just_written_is_not_remembered(picture: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("jedi_diffusion.evaluation.digests.SETTLED", 10**12)
    digests = FileDigests(tmp_path / "files.json")
    digests.of(picture)
    assert digests.of(picture)[1] == b"first"
    digests.save()
    assert not digests.record.exists()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a": 1}', b'{"a": [[1, 2], "00"]}', b"\xff"])
def test_a_damaged_record_is_dropped(picture: Path, tmp_path: Path, content: bytes, caplog) -> None:
    record = tmp_path / "files.json"
    record.write_bytes(content)
    digests = FileDigests(record)
    assert "is damaged" in caplog.text
    assert digests.of(picture)[1] == b"first"


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    digests = FileDigests(tmp_path / "files.json")
    with pytest.raises(PictureError, match=r"nowhere\.png cannot be read"):
        digests.of(tmp_path / "nowhere.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(PictureError, match=r"empty\.png is empty"):
        digests.of(tmp_path / "empty.png")
