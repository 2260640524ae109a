"""All adapters together: built from a section of a recipe, and run through the stages of Algorithm 1."""

import numpy as np
import pytest

from jedi_diffusion.errors import UsageError
from jedi_diffusion.synthesis.models_config import build_model, build_models, check_models
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.protocols import Models
from jedi_diffusion.synthesis.records import Stage
from jedi_diffusion.synthesis.settings import StageSettings
from jedi_diffusion.synthesis.stages import synthesize
from tests.helpers.synthesis_models import Writer

FOLDERS = {
    "writer": "instruct",
    "generator": "sdxl",
    "detector": "grounding_dino",
    "segmenter": "sam",
    "embedder": "clip",
    "inpainter": "inpainting",
    "stylizer": "pix2pix",
    "captioner": "blip2",
}
SMALL = {
    "writer": {"kind": "instruct", "max_new_tokens": 8},
    "generator": {"kind": "text-to-image", "steps": 1},
    "detector": {"kind": "grounding-dino", "box_threshold": 0.0, "text_threshold": 0.0},
    "segmenter": {"kind": "sam"},
    "embedder": {"kind": "clip"},
    "inpainter": {"kind": "inpainting", "steps": 1},
    "stylizer": {"kind": "instruct-pix2pix", "steps": 1},
    "captioner": {"kind": "blip-2", "beams": 1, "max_new_tokens": 5},
}
SETTINGS = StageSettings(
    collages=2,
    collage_size=64,
    scene_size=32,
    min_score=0,
    min_area=0.0001,
    max_area=1,
    border=0,
    max_overlap=1,
    affinity=0,
    style_probability=1,
)


@pytest.fixture(scope="module")
def models(checkpoint) -> Models:
    section = {part: {"model": str(checkpoint(name)), **SMALL[part]} for part, name in FOLDERS.items()}
    return build_models(check_models(section), "cpu")


class Framed:
    """Random masks reach the border; these do not, so that instances are kept."""

    def __init__(self, segmenter):
        self.segmenter, self.fingerprint = segmenter, segmenter.fingerprint

    def segment(self, pictures, boxes):
        masks = self.segmenter.segment(pictures, boxes)
        return [[np.pad(mask[1:-1, 1:-1], 1) for mask in each] for each in masks]


def test_every_stage_runs_on_the_adapters(models):
    parts = {part: getattr(models, part) for part in FOLDERS} | {
        "writer": Writer(),
        "segmenter": Framed(models.segmenter),
    }
    made = synthesize([ObjectName("teapot", "vessel")], Models(**parts), SETTINGS, 0)
    assert made.kept
    for each in made.kept[0].info["pictures"]:
        told = {step["stage"]: step.get("model", "") for step in each["steps"]}
        assert told[Stage.COLLAGE] == models.generator.fingerprint
        assert told[Stage.INSTANCE] == f"{models.detector.fingerprint} + {models.segmenter.fingerprint}"
        assert told[Stage.GROUP] == models.embedder.fingerprint
        assert told[Stage.SCENE] == models.inpainter.fingerprint
        assert told[Stage.STYLE] == models.stylizer.fingerprint
        assert told[Stage.CAPTION] == models.captioner.fingerprint
    assert {picture.size for each in made.kept for picture in each.pictures} == {(32, 32)}
    assert len({getattr(models, part).fingerprint for part in FOLDERS}) == len(FOLDERS)


def test_a_models_own_device_comes_before_the_runs(checkpoint):
    section = {part: {"model": str(checkpoint(name)), **SMALL[part]} for part, name in FOLDERS.items()}
    section["embedder"]["device"] = "cpu"
    config = check_models(section)
    assert build_model("embedder", config["embedder"], "cuda:99").device.type == "cpu"
    with pytest.raises(UsageError, match="cuda:99"):
        build_model("segmenter", config["segmenter"], "cuda:99")
