"""What `jedi evaluate` compares: a method is one file and one line in a union, and keeps one contract."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

import jedi_diffusion
from jedi_diffusion import methods
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.evaluation.generate import open_references
from jedi_diffusion.evaluation.own_subjects import open_own_subjects
from jedi_diffusion.methods.finetuned import FinetunedMethod
from jedi_diffusion.methods.recipe import Method
from jedi_diffusion.methods.settings import MethodSettings
from jedi_toybox.evaluation_data import write_evaluation_data
from tests.helpers.small_blip_diffusion import save_blip_diffusion
from tests.helpers.small_ip_adapter import save_ip_adapter
from tests.helpers.small_pipelines import save_joint

SOURCE = Path(jedi_diffusion.__file__).parent
METHODS: tuple[type[MethodSettings], ...] = get_args(get_args(Method)[0])
WITHOUT_MODEL = {"copy", "oracle"}


def kind_of(method: type[MethodSettings]) -> str:
    (kind,) = get_args(method.model_fields["kind"].annotation)
    return str(kind)


def concrete(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        if not inspect.isabstract(each):
            yield each
        yield from concrete(each)


def test_every_method_of_the_package_is_in_the_union_and_has_a_file_of_its_own() -> None:
    for module in pkgutil.iter_modules(methods.__path__):
        importlib.import_module(f"jedi_diffusion.methods.{module.name}")
    ours = {each for each in concrete(MethodSettings) if each.__module__.startswith("jedi_diffusion.")}
    assert ours == set(METHODS)
    assert len({each.__module__ for each in METHODS}) == len({*map(kind_of, METHODS)}) == len(METHODS)


@pytest.mark.parametrize("method", METHODS, ids=kind_of)
def test_only_its_own_file_and_the_union_know_a_method(method: type[MethodSettings]) -> None:
    own = method.__module__.rpartition(".")[2]
    knowing = {
        str(file.relative_to(SOURCE))
        for file in SOURCE.rglob("*.py")
        if re.search(rf"\b{method.__name__}\b", file.read_text(encoding="utf-8"))
    }
    assert knowing == {f"methods/{own}.py", "methods/recipe.py"}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    """One subject, one prompt, one picture, with its truth."""
    data = write_evaluation_data(tmp_path_factory.mktemp("data"), 1, 1, 32)
    return open_own_subjects(data, 1, "picks", 1, "toybox")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What methods need that run on no joint model."""
    home = tmp_path_factory.mktemp("models")
    adapter, blip = save_ip_adapter(home / "adapter"), save_blip_diffusion(home / "blip")
    return {
        "": {"model": str(save_joint(home / "joint"))},
        "ip_adapter": {
            "model": str(adapter / "model"),
            "weights": str(adapter / "adapter.safetensors"),
            "image_encoder": str(adapter / "encoder"),
        },
        "blip_diffusion": {"model": str(blip / "model"), "vocabulary": str(blip / "words")},
    }


@pytest.mark.parametrize("method", METHODS, ids=kind_of)
def test_settings_build_a_method_that_makes_the_same_pictures_again(
    method: type[MethodSettings], wanted: EvaluationSet, folders: dict[str, Any], tmp_path: Path
) -> None:
    kind = kind_of(method)
    given: dict[str, Any] = {"kind": kind, "name": "one"}
    if kind not in WITHOUT_MODEL:
        given |= {"steps": 1, "size": 32} | folders.get(kind, folders[""])
    if issubclass(method, FinetunedMethod):
        given |= {"fit_steps": 1, "prior_pictures": 1}
    settings = TypeAdapter(Method).validate_python(given)
    settings.check()
    made = [], []
    for pictures in made:
        built = settings.build(wanted, torch.device("cpu"), tmp_path / "fits")
        for case in wanted.cases:
            caption = [case.subject.caption]
            pictures += built(open_references(case), caption, [case.text] * 2, [case.seed, 7])
    assert [(each.size, each.mode) for each in made[0]] == [((32, 32), "RGB")] * 2
    assert all(np.array_equal(one, other) for one, other in zip(*made, strict=True))
    assert (settings.remark(tmp_path / "fits") is not None) == issubclass(method, FinetunedMethod)
