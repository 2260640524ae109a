"""What every collection keeps, and that a source of data is one file and one line in a union."""

import importlib
import inspect
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import jedi_diffusion
from jedi_diffusion import data
from jedi_diffusion.data.collection import SetCollection
from jedi_diffusion.data.folders import write_subject
from jedi_diffusion.data.recipe import Source, open_mixture
from jedi_diffusion.data.settings import SourceSettings
from jedi_toybox.collection import ToyboxSection
from tests.helpers.small_films import write_film
from tests.helpers.small_sets import picture, subject_set, write_shards

SOURCE = Path(jedi_diffusion.__file__).parents[1]
SOURCES: tuple[type[SourceSettings], ...] = (*get_args(get_args(Source)[0]), ToyboxSection)


def kind_of(source: type[SourceSettings]) -> str:
    (kind,) = get_args(source.model_fields["kind"].annotation)
    return str(kind)


def test_every_source_of_the_package_is_in_the_union() -> None:
    for module in pkgutil.iter_modules(data.__path__):
        importlib.import_module(f"jedi_diffusion.data.{module.name}")
    waiting, found = [SourceSettings], set()
    while waiting:
        each = waiting.pop()
        waiting += each.__subclasses__()
        if not inspect.isabstract(each) and each.__module__.startswith("jedi_"):
            found.add(each)
    assert found == set(SOURCES)


@pytest.mark.parametrize("source", SOURCES, ids=kind_of)
def test_only_its_own_file_and_the_union_know_a_source(source: type[SourceSettings]) -> None:
    own = source.__module__.replace(".", "/") + ".py"
    union = "train/joint_recipe" if source is ToyboxSection else "data/recipe"
    texts = {str(file.relative_to(SOURCE)): file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py")}
    knowing = {name for name, text in texts.items() if re.search(rf"(?<!\.){source.__name__}\b", text)}
    knowing -= {"jedi_diffusion/evaluation/recipe.py"}  # an evaluation set of the toybox has the same name
    assert knowing == {own, f"jedi_diffusion/{union}.py"}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Two sets of two pictures for each kind."""
    home = tmp_path_factory.mktemp("places")
    write_shards(home / "tars", (2, 2))
    for name in ("a", "b"):
        write_subject(home / "folders" / name, subject_set(1, 2))
        (home / "views" / name).mkdir(parents=True)
        (home / "views" / f"{name}.txt").write_text("a dog")
        for number in range(2):
            picture(number).save(home / "views" / name / f"{number}.png")
        if find_spec("av"):
            write_film(home / "films" / f"{name}.mp4", seconds=3)
            (home / "films" / f"{name}.txt").write_text("a dog")
    return {
        "sets": {"place": str(home / "tars")},
        "single": {"place": str(home / "tars")},
        "folders": {"place": str(home / "folders")},
        "multiview": {"place": str(home / "views")},
        "video": {"place": str(home / "films"), "gap": 0.5},
        "toybox": {"kind": "toybox", "subjects": 2, "pictures": 2},
    }


@pytest.mark.parametrize("source", SOURCES, ids=kind_of)
def test_sets_are_functions_of_their_number_and_the_generator(
    source: type[SourceSettings], places: dict[str, Any]
) -> None:
    if kind_of(source) == "video":
        pytest.importorskip("av")
    opened: list[SetCollection] = [source.model_validate(places[kind_of(source)]).open(32) for _ in range(2)]
    one, other = opened
    assert len(one) == len(other) >= 2
    assert isinstance(one.source, str)
    assert [one.name(item) for item in range(len(one))] == [other.name(item) for item in range(len(one))]
    assert list(one.parts()) == list(other.parts())
    for item in range(len(one)):
        size = one.size(item)
        assert size >= 1
        read = [each.read(item, size, np.random.default_rng(3)) for each in (one, other)]
        for found in read:
            assert len(found.pictures) == len(found.captions) == size
            assert {each.mode for each in found.pictures} == {"RGB"}
            assert not found.masks or len(found.masks) == size
        for first, second in zip(*(each.pictures for each in read), strict=True):
            assert first.tobytes() == second.tobytes()


def test_a_mixture_draws_from_every_kind(places: dict[str, Any]) -> None:
    pytest.importorskip("av")
    sources = [each.model_validate(places[kind_of(each)] | {"sizes": (1,)}) for each in SOURCES]
    mixture = open_mixture(sources, 32)
    assert {mixture.pick(place).source for place in range(60)} == set(range(len(sources)))
    assert {len(mixture[place].pictures) for place in range(12)} == {1}
