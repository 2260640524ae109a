"""The shipped list of objects, and lists of the user's own with their errors."""

import re
from pathlib import Path

import pytest

from jedi_diffusion.errors import UsageError
from jedi_diffusion.synthesis.names import OTHER, ObjectName, object_names, read_object_names


def test_shipped_list_is_long_clean_and_sorted() -> None:
    names = object_names()
    assert len(names) >= 1500
    assert len({item.name.lower() for item in names}) == len(names)
    assert len({item.category for item in names}) >= 30
    rows = [(item.category, item.name) for item in names]
    assert rows == sorted(rows)
    for item in names:
        assert re.fullmatch(r"[A-Za-z][A-Za-z' -]+", item.name), item
        assert re.fullmatch(r"[a-z][a-z ]+", item.category), item


def test_the_docs_say_how_long_the_list_is() -> None:
    names = object_names()
    said = f"{len(names):,} common things and animals in {len({item.category for item in names})} categories"
    page = Path(__file__).resolve().parents[2] / "docs" / "synthesis.md"
    assert said in page.read_text(encoding="utf-8")


def test_shipped_list_has_things_and_no_people_places_or_arms() -> None:
    category = {item.name: item.category for item in object_names()}
    expected = {
        "polar bear": "mammal",
        "teapot": "kitchenware",
        "violin": "musical instrument",
        "kite": "toy or game",
    }
    assert expected.items() <= category.items()
    assert not category.keys() & {
        "man",
        "queen",
        "beauty",
        "city",
        "pistol",
        "machine gun",
        "vehicle",
        "idea",
    }


def test_the_licence_of_wordnet_is_beside_the_list() -> None:
    import jedi_diffusion.synthesis

    folder = Path(jedi_diffusion.synthesis.__file__).parent
    assert "Princeton University" in (folder / "object_names.LICENSE.txt").read_text(encoding="utf-8")


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(
        "\ufeff# mine\nTeapot\n\n  red   panda \nmoon lamp\ngizmo\tthings of mine\n", encoding="utf-8"
    )
    assert read_object_names(path) == (
        ObjectName("Teapot", "kitchenware"),
        ObjectName("red panda", "mammal"),
        ObjectName("moon lamp", OTHER),
        ObjectName("gizmo", "things of mine"),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no name"),
        (b"# only a comment\n", "holds no name"),
        (b"a\tb\tc\n", "Line 1 .* has 3 columns"),
        (b"cup\n\tkitchenware\n", "Line 2 .* has an empty column"),
        (b"cup\n\nCUP\n", "Line 3 .* of line 1 again"),
        (b"x" * 81, "a column of 81 letters, more than the 80"),
        (b"cup\x00\n", "control character"),
        (b"123\n", "no letter"),
        (b"caf\xe9\n", "not UTF-8"),
    ],
)
def test_errors_of_a_list_name_file_line_and_fault(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_object_names(path)
    assert str(path) in str(caught.value)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere.txt cannot be read: No such file"):
        read_object_names(tmp_path / "nowhere.txt")
    with pytest.raises(UsageError, match="cannot be read"):
        read_object_names(tmp_path)
