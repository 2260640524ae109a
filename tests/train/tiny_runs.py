"""A tiny base model in the real format, a folder of subjects, and recipes that train on them in moments."""

from pathlib import Path

import numpy as np
from PIL import Image
from small_pipelines import sd_parts, sdxl_parts

COLORS = ((220, 40, 40), (40, 200, 60), (50, 60, 220), (230, 200, 40), (200, 60, 200))


def save_base(folder: Path, kind: str = "sd") -> Path:
    """SD 1.4's or SDXL's parts with narrow layers, plain or as an inpainting model with nine channels."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

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
