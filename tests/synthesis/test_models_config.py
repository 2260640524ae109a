"""The `models` section of a recipe: what it accepts, what it builds, and that reading it is light."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from jedi_diffusion.errors import RecipeError
from jedi_diffusion.synthesis.adapters.endpoint import EndpointSettings
from jedi_diffusion.synthesis.adapters.settings import PlainSettings
from jedi_diffusion.synthesis.models_config import KINDS, Kind, build_model, build_models, check_models
from jedi_diffusion.synthesis.protocols import Models
from jedi_diffusion.synthesis.recipe import PARTS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "synthesis.md"
SMALLEST = {"writer": {"kind": "endpoint", "model": "any"}} | {
    part: {"kind": kind}
    for part, kind in (
        ("generator", "text-to-image"),
        ("detector", "grounding-dino"),
        ("segmenter", "sam"),
        ("embedder", "clip"),
        ("inpainter", "inpainting"),
        ("stylizer", "instruct-pix2pix"),
        ("captioner", "blip-2"),
    )
}


KIND = {part: {"kind": choice["kind"]} for part, choice in SMALLEST.items() if part != "writer"}


def paper() -> dict:
    """The section in the documentation."""
    (block,) = re.findall(r"```yaml\nmodels:\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return yaml.safe_load(block)


def test_the_documented_section_names_every_part_and_is_accepted() -> None:
    config, smallest = check_models(paper()), check_models(SMALLEST)
    assert list(config) == list(Models.__dataclass_fields__) == list(paper())
    for part in list(config)[1:]:  # ChatGPT is the one model that the paper names and nobody has
        assert config[part].model == smallest[part].model
    assert config["inpainter"].variant == "fp16"


@pytest.mark.parametrize(
    ("part", "given", "fault"),
    [
        (
            "writer",
            {},
            r"models\.writer\.kind: a kind is missing; the kinds are instruct, endpoint, templates",
        ),
        (
            "writer",
            {"kind": "oracle"},
            r"models\.writer\.kind: there is no 'oracle'; the kinds are instruct, ",
        ),
        ("writer", {"kind": "endpoint"}, r"models\.writer\.model is missing"),
        ("segmenter", {"kind": "sam2"}, r"models\.segmenter\.kind: there is no 'sam2'; the kinds are sam, "),
        ("segmenter", {"batchsize": 3}, r"models\.segmenter\.batchsize is not known"),
        ("detector", {"dtype": "float16"}, r"models\.detector\.dtype"),
        ("detector", {"box_threshold": 1.5}, r"models\.detector\.box_threshold"),
        ("generator", {"steps": 0}, r"models\.generator\.steps"),
        ("stylizer", {"image_guidance": 0.5}, r"models\.stylizer\.image_guidance"),
        ("captioner", {"model": ""}, r"models\.captioner\.model"),
        ("critic", {}, r"models\.critic: there is no such part"),
    ],
)
def test_faults_are_named_with_part_and_key(part: str, given: dict, fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        check_models({**SMALLEST, part: {**KIND.get(part, {}), **given}})
    with pytest.raises(RecipeError, match=r"models\.captioner: a model is missing"):
        check_models({part: SMALLEST[part] for part in list(SMALLEST)[:-1]})


def test_every_kind_takes_its_name_and_its_maker_is_there() -> None:
    assert {part for part, _ in KINDS} == set(PARTS)
    for (_, kind), entry in KINDS.items():
        required = {"model": "any"} if entry.settings is EndpointSettings else {}
        assert entry.settings.model_validate({"kind": kind, **required}).kind == kind
        if isinstance(entry.make, str):
            module, name = entry.make.split(":")
            assert callable(getattr(import_module(module), name))
        else:
            assert callable(entry.make)


def test_a_table_of_ones_own_adds_kinds() -> None:
    class OracleSettings(PlainSettings):
        depth: int = 1

    kinds = {**KINDS, ("writer", "oracle"): Kind(OracleSettings, lambda given, device: (given.depth, device))}
    section = {**SMALLEST, "writer": {"kind": "oracle", "depth": 3}}
    checked = check_models(section, kinds)
    made = build_models(checked, "cuda:7", kinds, parts=["writer"])
    assert made.writer == (3, "cuda:7")
    assert made.captioner is None
    with pytest.raises(RecipeError, match=r"models\.writer\.depth is .*, but must be a valid integer"):
        check_models({**section, "writer": {"kind": "oracle", "depth": "deep"}}, kinds)
    with pytest.raises(RecipeError, match="there is no 'oracle'"):
        check_models(section)


def test_an_endpoint_is_built_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    writer = build_model("writer", check_models(SMALLEST)["writer"], "cpu")
    assert writer.fingerprint == 'any at localhost:1 {"temperature": 1.0}'


def test_a_section_is_checked_without_torch() -> None:
    check = (
        "import sys; from jedi_diffusion.synthesis.models_config import check_models; "
        f"check_models({SMALLEST!r}); "
        "print({'torch', 'transformers', 'diffusers', 'openai'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
