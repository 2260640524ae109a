"""The script that makes the list of objects: on a WordNet of six words written here, and on the real one."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
REAL = Path(os.environ.get("WNSEARCHDIR", "/usr/share/wordnet"))

DATA = """\
  1 A licence stands here, indented.
00000010 03 n 01 physical_entity 0 000 | what exists
00000020 03 n 01 animal 0 001 @ 00000010 n 0000 | a bird or a tabby cat
00000030 05 n 01 bird 0 001 @ 00000020 n 0000 | a winged animal; "a big bird"
00000040 05 n 02 tabby_cat 0 tabby 0 001 @ 00000020 n 0000 | an animal
00000050 05 n 01 Garfield 0 001 @i 00000040 n 0000 | a cat
00000060 18 n 01 tabby 1 001 @ 00000010 n 0000 | a word of another sense
"""
INDEX = """\
  1 A licence stands here, indented.
animal n 1 2 @ ~ 1 1 00000020
bird n 1 1 @ 1 1 00000030
garfield n 1 1 @ 1 0 00000050
physical_entity n 1 0 1 0 00000010
tabby n 2 1 @ 2 1 00000060 00000040
tabby_cat n 1 1 @ 1 0 00000040
"""
PERSON = {
    "data.noun": "00000070 03 n 01 person 0 000 | who\n",
    "index.noun": "person n 1 0 1 0 00000070\n",
}
COUNTS = "bird%1:05:00:: 1 4\nbird%2:30:00:: 1 9\ntabby%1:05:00:: 2 7\n"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("object_names", TOOLS / "object_names.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["object_names"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "data.noun").write_text(DATA, encoding="utf-8")
    (tmp_path / "index.noun").write_text(INDEX, encoding="utf-8")
    (tmp_path / "cntlist.rev").write_text(COUNTS, encoding="utf-8")
    return tmp_path


def test_reads_synsets_senses_and_scores(tool: ModuleType, small: Path) -> None:
    nouns = tool.read_nouns(small)
    assert nouns.ancestors("00000040") == {"00000040", "00000020", "00000010"}
    assert nouns.synsets["00000050"].is_instance
    assert nouns.offset("tabby#2") == "00000040"
    assert nouns.score("bird") == 3 * 4 + 2  # the verb's count does not matter
    assert nouns.score("tabby_cat") == 1
    assert nouns.score("tabby") == 1  # only first senses are counted in texts
    with pytest.raises(SystemExit, match="unicorn is no noun"):
        nouns.offset("unicorn")


def test_phrases_are_runs_of_up_to_three_words(tool: ModuleType) -> None:
    assert list(tool.phrases("A red-hot iron, bar")) == [
        *("a", "red-hot", "iron", "bar"),
        *("a_red-hot", "red-hot_iron", "iron_bar"),
        *("a_red-hot_iron", "red-hot_iron_bar"),
    ]


def test_common_words_below_a_category_become_candidates(
    tool: ModuleType, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "CATEGORIES", "\n+ flyer: bird#1\n+ beast: animal#1\n")
    for name in ("data.noun", "index.noun"):
        text = (small / name).read_text(encoding="utf-8")
        (small / name).write_text(text + PERSON[name], encoding="utf-8")
    nouns = tool.read_nouns(small)
    categories = tool.Categories(nouns)
    assert list(tool.candidates(nouns, categories)) == [("bird", "flyer")]
    monkeypatch.setattr(tool, "COMMON", 1)
    assert list(tool.candidates(nouns, categories)) == [
        ("animal", "beast"),
        ("bird", "flyer"),
        ("tabby_cat", "beast"),
    ]
    assert categories.sense("tabby", "beast") == "00000040"
    assert categories.sense("tabby", "flyer") == "00000060"
    with pytest.raises(SystemExit, match="no category 'plant'"):
        categories.sense("tabby", "plant")


def test_hand_made_lists_hold_no_name_twice(tool: ModuleType) -> None:
    for name in ("object_names_added.txt", "object_names_excluded.txt"):
        entries = tool.listed(TOOLS / name)
        assert all(heading for _, heading in entries)
        assert len(dict(entries)) == len(entries)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs Debian's package wordnet-base")
def test_the_shipped_list_is_what_the_script_makes(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tool.TARGET.read_bytes()
    monkeypatch.setattr(tool, "TARGET", tmp_path / "object_names.tsv")
    tool.main([str(REAL)])
    assert tool.TARGET.read_bytes() == shipped
