"""Whom to credit for the showroom."""

from jedi_showroom.credits import credits_text
from jedi_showroom.packages import PACKAGES
from jedi_showroom.subjects import Subject


def test_every_author_licence_work_and_package_is_named_once() -> None:
    works = [
        Subject("a", "lamp", "1", "zoe", "CC0"),
        Subject("b", "chair", "2", "Anna", "CC-BY 3.0"),
        Subject("c", "armchair", "3", "Anna", "CC-BY 3.0"),
        Subject("d", "chair", "4", "Anna", "CC-BY 3.0"),
        Subject("e", "rug", "5", "Anna", "CC0"),
    ]
    lines = credits_text(works).splitlines()
    assert lines[-3:] == ["- Anna (CC-BY 3.0): armchair, chair", "- Anna (CC0): rug", "- zoe (CC0): lamp"]
    for package in PACKAGES:
        assert f"- {package.file} ({package.licence})" in lines
    assert credits_text(works) == credits_text(works[::-1])
