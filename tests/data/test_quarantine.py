"""Quarantine: one line an item, shared by processes, fatal above the limit only."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.errors import DataError, OutputError


def test_items_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    quarantine = Quarantine(path, limit=2)
    for _ in range(3):
        quarantine.add("photos", "3", "broken", "17")
    quarantine.add("photos", "4", "größer", None)
    assert len(quarantine) == 2
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"source": "photos", "item": "3", "reason": "broken", "replacement": "17"},
        {"source": "photos", "item": "4", "reason": "größer", "replacement": None},
    ]
    with pytest.raises(DataError, match=r"3 items .* more than the limit of 2; the last: lost"):
        quarantine.add("videos", "3", "lost")


def test_processes_and_later_runs_share_the_count(tmp_path: Path) -> None:
    first, second = (Quarantine(tmp_path / "bad.jsonl", limit=2) for _ in range(2))
    first.add("a", "1", "x")
    second.add("a", "1", "x")
    second.add("a", "2", "y")
    assert len(first) == len(second) == len(Quarantine(tmp_path / "bad.jsonl")) == 2
    with pytest.raises(DataError, match="3 items"):
        first.add("a", "3", "z")


def test_lines_of_several_writers_stay_whole(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        quarantine = Quarantine(tmp_path / "bad.jsonl", limit=1000)
        for item in range(25):
            quarantine.add(f"{writer}", f"{item}", "reason " * 50)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(Quarantine(tmp_path / "bad.jsonl")) == 100


def test_a_line_that_is_being_written_is_not_read_yet(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "bad.jsonl")
    quarantine.add("a", "1", "x")
    with (tmp_path / "bad.jsonl").open("a") as file:
        file.write('{"source": "a", "item"')
    assert Quarantine(tmp_path / "bad.jsonl").reasons() == {("a", "1"): "x"}


def test_without_a_path_it_is_kept_in_memory() -> None:
    quarantine = Quarantine(limit=1)
    quarantine.add("a", "1", "x")
    assert quarantine.reasons() == {("a", "1"): "x"}
    with pytest.raises(DataError, match=r"the last: y$"):
        quarantine.add("a", "2", "y")


def test_other_files_are_not_written_to(tmp_path: Path) -> None:
    for text in ("notes\n", "[]\n", '{"source": "a"}\n', "3\n"):
        (tmp_path / "notes").write_text(text)
        with pytest.raises(DataError, match="notes is no quarantine"):
            Quarantine(tmp_path / "notes").add("a", "1", "x")
        assert (tmp_path / "notes").read_text() == text


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no/bad\.jsonl cannot be written"):
        Quarantine(tmp_path / "no" / "bad.jsonl").add("a", "1", "x")
