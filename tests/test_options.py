"""Settings are declared once: a new one reaches every surface, and a wrong value gets one sentence."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jedi_diffusion import JeDiPipeline, options
from jedi_diffusion.app.fields import FieldError, read_fields
from jedi_diffusion.app.session import read_controls
from jedi_diffusion.cli.batch import BatchOptions, read_line
from jedi_diffusion.cli.options import from_settings, parse
from jedi_diffusion.errors import RecipeError, UsageError
from jedi_diffusion.methods.joint import ModelMethod
from jedi_diffusion.options import (
    ARGUMENTS,
    OF_MODEL,
    Denoising,
    Sampling,
    SizedSampling,
    without_defaults,
)
from jedi_diffusion.recipes import checked

TOY = """
    sharpness: Annotated[float, Between(0, 7)] | None = None
    \"\"\"How sharp: a setting that there is not.\"\"\"
"""
SURFACES = """
import contextlib, importlib.util, io, json, sys
spec = importlib.util.spec_from_file_location("jedi_diffusion.options", sys.argv[1])
module = sys.modules["jedi_diffusion.options"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

from jedi_diffusion.app.page import component, controls_of, values_of
from jedi_diffusion.app.routes import FIELDS
from jedi_diffusion.app.session import Controls, sampling_of
from jedi_diffusion.cli import batch, demo, options, photos_score, toybox_score
from jedi_diffusion.methods.recipe import ModelMethod, TextOnlyMethod, TrainingFreeMethod

helps = {}
for command in (options.parse, batch.run, demo.run, photos_score.run, toybox_score.run):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        command(["--help"])
    helps[command.__module__] = said.getvalue()
words = ["--prompt", "a", "--sharpness", "2.5"]
given = options.parse(words)
run = batch.BatchOptions(jobs="jobs.jsonl", out="out")
line = batch.read_line('{"prompt": "a", "reference": "a.png", "sharpness": 2.5}', 1, run)
method = ModelMethod.model_validate({"kind": "model", "name": "m", "sharpness": 2.5})
shown = component("sharpness", given.sharpness)
controls = Controls(by_hand=True, sharpness=2.5)
print(json.dumps({
    "helps": helps,
    "arguments": [each.at(8, 8).arguments()["sharpness"] for each in (given, line, method, controls)],
    "record": options.to_record(given)["sharpness"],
    "schema": FIELDS["properties"]["sharpness"],
    "component": [shown.label, shown.info, shown.minimum, shown.maximum],
    "page": sampling_of(controls_of(tuple(values_of(controls))), controls).sharpness,
    "recipes": ["sharpness" in each.model_fields for each in (TextOnlyMethod, TrainingFreeMethod)],
}))
"""


def test_a_setting_that_is_added_to_the_options_is_everywhere(tmp_path: Path) -> None:
    source = Path(options.__file__).read_text()
    assert source.count("\n    def at(") == 1
    toy = tmp_path / "options.py"
    toy.write_text(source.replace("\n    def at(", f"{TOY}\n    def at("))
    done = subprocess.run([sys.executable, "-c", SURFACES, str(toy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    meaning = "How sharp: a setting that there is not."
    shown = {name for name, text in found["helps"].items() if "--sharpness" in text and "How sharp" in text}
    commands = {f"jedi_diffusion.cli.{name}" for name in ("options", "demo", "photos_score", "toybox_score")}
    assert shown == commands  # lines of a batch have settings, the command itself has none
    assert found["arguments"] == [2.5] * 4
    assert (found["record"], found["page"], found["recipes"]) == (2.5, 2.5, [True, True])
    assert found["schema"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 7}
    assert found["schema"]["description"] == meaning
    assert found["component"] == ["Sharpness", meaning, 0, 7]


def test_the_call_of_the_pipeline_has_the_same_settings_and_defaults() -> None:
    taken = inspect.signature(JeDiPipeline.__call__).parameters
    for name, field in Sampling.model_fields.items():
        own = None if name in OF_MODEL else field.default
        assert taken[ARGUMENTS.get(name, name)].default == own, name
    assert SizedSampling(height=8, width=16).arguments().keys() <= taken.keys()
    assert list(Denoising().arguments()) == ["num_inference_steps", "guidance_scale"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("steps", 0, "is 0, but must lie between 1 and 1000"),
        ("image_guidance", 100.5, "is 100.5, but must lie between 0 and 100"),
        ("temperature", float("nan"), "is nan, but must lie between 0 and 1"),
        ("null_set", "none", "is 'none', but must be 'joint' or 'single'"),
    ],
)
def test_a_wrong_value_gets_the_same_sentence_everywhere(name: str, value: object, said: str) -> None:
    def sentence(kind: type[UsageError], call: object, *given: object) -> str:
        with pytest.raises(kind) as caught:
            call(*given)  # type: ignore[operator]
        return str(caught.value)

    run = BatchOptions(jobs="jobs.jsonl", out="out")
    recorded = type("Settings", (), {"options": {name: value}})
    method = {"kind": "model", "name": "m", name: value}
    api = "image_guidance_scale" if name == "image_guidance" else name
    if name != "null_set":  # the parser itself refuses unknown choices, and lists those that there are
        assert sentence(UsageError, parse, [f"--{name.replace('_', '-')}", str(value)]) == (
            f"--{name.replace('_', '-')} {said}."
        )
    assert sentence(UsageError, read_line, json.dumps({name: value}), 1, run) == f"{name} {said}."
    assert sentence(UsageError, from_settings, recorded).endswith(f": {name} {said}.")
    assert sentence(FieldError, read_fields, {"prompt": "a", api: value}) == f"{api} {said}."
    page = name.replace("_", " ").capitalize()
    assert sentence(UsageError, read_controls, {name: value}) == f"{page} {said}."
    recipe = sentence(RecipeError, checked, ModelMethod, method, Path("r.yaml"))
    assert recipe == f"The recipe r.yaml does not fit: {name} {said}."


def test_records_compare_without_settings_at_their_defaults() -> None:
    """What a version wrote that did not have a setting yet is the same as what one writes that has it."""
    old = {"steps": 25, "guidance_scale": 2.0, "model": "toybox"}
    assert without_defaults(old | {"null_set": "joint"}) == without_defaults(old)
    assert without_defaults(old | {"null_set": "single"}) != without_defaults(old)
    assert without_defaults(old) == {"guidance_scale": 2.0, "model": "toybox"}
