"""A tiny base model in the real format, a folder of subjects, and runs that train in moments."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from jedi_diffusion.cli.train import _open_mixture
from jedi_diffusion.train.config import Recipe
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.joint_run import JointRun, start_processes
from jedi_diffusion.train.runner import TrainingRun
from tests.helpers.plain_source import PlainSource, image_set
from tests.helpers.small_klein import save_klein
from tests.helpers.small_mmdit import SD35_MEDIUM
from tests.helpers.small_pipelines import sd_parts, sdxl_parts
from tests.helpers.small_published import flux_parts, sd3_parts
from tests.helpers.small_recipes import TINY_UNET

COLORS = ((220, 40, 40), (40, 200, 60), (50, 60, 220), (230, 200, 40), (200, 60, 200))


def save_base(folder: Path, kind: str = "sd") -> Path:
    """A family's parts with narrow layers: SD 1.4 (sd), also as an inpainting model with nine channels
    (inpaint), SDXL, FLUX.2 [klein] base, FLUX.1 [dev], SD3.5 medium.
    """
    from diffusers import (
        FluxPipeline,
        StableDiffusion3Pipeline,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
    )

    if kind == "klein":
        save_klein(folder, is_distilled=False)
        return folder
    if kind == "flux":
        FluxPipeline(**flux_parts(guidance_embeds=True)).save_pretrained(folder)
        return folder
    if kind == "sd35":
        StableDiffusion3Pipeline(**sd3_parts(**SD35_MEDIUM)).save_pretrained(folder)
        return folder
    if kind == "sdxl":
        StableDiffusionXLPipeline(
            **sdxl_parts(), force_zeros_for_empty_prompt=True, add_watermarker=False
        ).save_pretrained(folder)
        return folder
    parts = sd_parts(in_channels=9) if kind == "inpaint" else sd_parts()
    StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained(folder)
    return folder


def save_subjects(folder: Path, pictures: int = 3) -> Path:
    """A folder for each colour, its pictures a square of the colour on noise."""
    random = np.random.default_rng(0)
    for number, color in enumerate(COLORS):
        place = folder / f"thing {number}"
        place.mkdir(parents=True)
        for index in range(pictures):
            picture = random.integers(0, 255, (40, 48, 3), dtype=np.uint8)
            picture[8:32, 4 + 6 * index : 28 + 6 * index] = color
            Image.fromarray(picture).save(place / f"{index}.png")
    return folder


def recipe(base: Path, subjects: Path, **changes: object) -> dict:
    """A recipe of four steps as its YAML would read; changes replace keys by path (`training__steps=8`)."""
    raw: dict = {
        "name": "tiny",
        "base": str(base),
        "data": {
            "resolution": 32,
            "workers": 0,
            "sources": [{"kind": "folders", "place": str(subjects), "sizes": [1, 2, 3]}],
        },
        "conditions": {"cached": 0.3},
        "training": {
            "steps": 4,
            "batch": 4,
            "micro_batch": 4,
            "learning_rate": 1e-3,
            "warmup": 1,
            "ema": 0.5,
            "precision": "float32",
        },
        "records": {"save_every": 2, "log_every": 1, "sample_every": None},
    }
    for path, value in changes.items():
        place = raw
        *names, last = path.split("__")
        for name in names:
            place = place.setdefault(name, {})
        place[last] = value
    return raw


def run_of(folder: Path, raw: dict) -> JointRun:
    checked = JointRecipe.model_validate(raw)
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = start_processes(checked, folder, "cpu")
    return JointRun(checked, _open_mixture(checked, folder, accelerator), folder, accelerator)


def with_dropout(base: Path, folder: Path) -> Path:
    """A copy of the base whose UNet draws from torch's global state in training."""
    shutil.copytree(base, folder)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dropout": 0.2}))
    return folder


STAGE = {
    "subjects": 80,
    "pictures": 2,
    "share": 0.5,
    "steps": 4,
    "batch": 8,
    "learning_rate": 0.001,
    "warmup": 2,
}
STAGED = {
    "name": "plain",
    "source": "toybox",
    "precision": "float32",
    "model": {
        "autoencoder": {"latent_channels": 4, "widths": [8, 16]},
        "text_width": 16,
        "text_heads": 2,
        "text_length": 8,
        "unet": dict(TINY_UNET),
        "scheduler": {"prediction_type": "v_prediction"},
        "distance_slope": 1.5,
        "temperature": 0.6,
    },
    "stages": [
        STAGE | {"name": "autoencoder", "kind": "autoencoder", "resolution": 32},
        STAGE | {"name": "pairs", "kind": "joint", "resolution": 16, "set_sizes": {1: 0.5, 2: 0.5}},
        STAGE
        | {
            "name": "sets",
            "kind": "joint",
            "resolution": 32,
            "set_sizes": {2: 1.0},
            "attention": "plain",
            "cached": 0.7,
        },
    ],
}


def staged_run(folder: Path) -> TrainingRun:
    """Three stages of four steps on plain pictures."""
    recipe = Recipe.model_validate(STAGED)
    return TrainingRun(recipe, PlainSource(), [image_set(90, 32)], folder, "cpu")
