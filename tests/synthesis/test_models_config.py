"""The `models` section of a recipe: what it accepts, what it builds, and that reading it is light."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
import yaml

from jedi_diffusion.errors import RecipeError
from jedi_diffusion.synthesis.models_config import BUILDERS, ModelsConfig, build_model, check_models
from jedi_diffusion.synthesis.protocols import Models

DOCS = Path(__file__).resolve().parents[2] / "docs" / "synthesis.md"
SMALLEST = {"writer": {"kind": "endpoint", "model": "any"}} | {
    part: {}
    for part in ("generator", "detector", "segmenter", "embedder", "inpainter", "stylizer", "captioner")
}


def paper() -> dict:
    """The section in the documentation."""
    (block,) = re.findall(r"```yaml\nmodels:\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return yaml.safe_load(block)


def test_the_documented_section_names_every_part_and_is_accepted() -> None:
    config = check_models(paper())
    assert list(ModelsConfig.model_fields) == list(Models.__dataclass_fields__) == list(paper())
    smallest = check_models(SMALLEST)
    for part in list(ModelsConfig.model_fields)[
        1:
    ]:  # ChatGPT is the one model that the paper names and nobody has
        assert getattr(config, part).model == getattr(smallest, part).model
    assert config.inpainter.variant == "fp16"


@pytest.mark.parametrize(
    ("part", "given", "fault"),
    [
        ("writer", {}, r"models\.writer: Unable to extract tag"),
        ("writer", {"kind": "oracle"}, r"models\.writer: .*'instruct', 'endpoint'"),
        ("writer", {"kind": "endpoint"}, r"models\.writer\.endpoint\.model: Field required"),
        ("segmenter", {"kind": "sam2"}, r"models\.segmenter\.kind: Input should be 'sam'"),
        ("segmenter", {"batchsize": 3}, r"models\.segmenter\.batchsize: Extra inputs"),
        ("detector", {"dtype": "float16"}, r"models\.detector\.dtype"),
        ("detector", {"box_threshold": 1.5}, r"models\.detector\.box_threshold"),
        ("generator", {"steps": 0}, r"models\.generator\.steps"),
        ("stylizer", {"image_guidance": 0.5}, r"models\.stylizer\.image_guidance"),
        ("captioner", {"model": ""}, r"models\.captioner\.model"),
        ("critic", {}, r"models\.critic: Extra inputs"),
    ],
)
def test_faults_are_named_with_part_and_key(part: str, given: dict, fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        check_models({**SMALLEST, part: given})
    with pytest.raises(RecipeError, match=r"models\.captioner: Field required"):
        check_models({part: SMALLEST[part] for part in list(SMALLEST)[:-1]})


def test_every_kind_has_a_builder_and_every_builder_a_kind() -> None:
    kinds = set()
    for part, field in ModelsConfig.model_fields.items():
        for settings in get_args(field.annotation) or (field.annotation,):
            kinds.add((part, settings.model_fields["kind"].default))
    assert kinds == BUILDERS.keys()


def test_every_builder_is_there() -> None:
    for target in BUILDERS.values():
        module, name = target.split(":")
        assert callable(getattr(import_module(module), name))


def test_an_endpoint_is_built_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    with build_model("writer", check_models(SMALLEST).writer, "cpu") as writer:
        assert writer.fingerprint == 'any at localhost:1 {"temperature": 1.0}'


def test_a_section_is_checked_without_torch() -> None:
    check = (
        "import sys; from jedi_diffusion.synthesis.models_config import check_models; "
        f"check_models({SMALLEST!r}); "
        "print({'torch', 'transformers', 'diffusers', 'httpx2'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
