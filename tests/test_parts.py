"""Values of a part's configuration: read by kind, or refused in a sentence."""

import pytest

from jedi_diffusion.errors import ModelError
from jedi_diffusion.parts import setting

CONFIG = {"count": 3, "scale": 2, "flag": True, "name": "a", "nothing": None}


def test_values_have_the_kind_that_is_asked_for() -> None:
    assert setting(CONFIG, "count", int) == 3
    assert setting(CONFIG, "flag", bool) is True
    assert setting(CONFIG, "name", str) == "a"
    scale = setting(CONFIG, "scale", float)  # JSON writes 2.0 as 2, too
    assert (scale, type(scale)) == (2.0, float)


def test_a_default_stands_for_what_is_missing_or_null() -> None:
    assert setting(CONFIG, "other", int, 7) == 7
    assert setting(CONFIG, "nothing", float, 0.5) == 0.5
    assert setting(CONFIG, "count", int, 7) == 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [("flag", int), ("flag", float), ("count", bool), ("count", str), ("name", float), ("nothing", int)],
)
def test_other_kinds_are_refused(name: str, kind: type) -> None:
    with pytest.raises(ModelError, match=f"{name} .*{kind.__name__}"):
        setting(CONFIG, name, kind)
