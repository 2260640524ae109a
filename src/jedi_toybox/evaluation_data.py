"""Held-out subjects as a folder that `evaluation.own_subjects` reads, with a true render for every prompt.

A subject's first photos are what pictures may be made from, the others are for comparison only.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.pictures import save_png
from jedi_toybox import world
from jedi_toybox.score import GALLERY, MAX_REFERENCES, to_picture

RECORD = "subject.json"
PHOTOS = MAX_REFERENCES + GALLERY
MAX_PROMPTS = len(world.SCENES) - PHOTOS

Classes = Literal["known", "held_out"]


def write_evaluation_data(
    folder: str | Path,
    subjects: int,
    prompts: int,
    size: int,
    classes: Classes = "known",
    seed: int = 0,
    device: str = "cpu",
    inputs: int = MAX_REFERENCES,
) -> Path:
    """Render the subjects that are not there yet and return the folder. Raises OutputError.

    classes: unseen subjects of the classes trained on, or of classes never seen; prompts: at most
    MAX_PROMPTS, each with a scene of its own; inputs: photos that references are taken from, one scene each.
    """
    home = make_folder(folder)
    for number in tqdm(range(subjects), desc="true pictures", unit="subject", leave=False):
        photos, truths = draw_subject(number, prompts, classes, seed, inputs)
        subject = photos[0].subject
        place = home / f"{number:03d}-{subject.noun.replace(' ', '-')}"
        if not (place / RECORD).exists():
            shutil.rmtree(place, ignore_errors=True)  # what a killed run began
            _write(place, photos, truths, size, device, inputs)
    return home


def draw_subject(
    number: int, prompts: int, classes: Classes, seed: int, inputs: int = MAX_REFERENCES
) -> tuple[list[world.PictureSpec], list[world.PictureSpec]]:
    """Return the photos of subject `number`, plain and each in a scene of its own, and the truths of its
    prompts in other scenes.
    """
    split: world.Split = "held_out" if classes == "known" else "held_out_classes"
    subject = world.sample_subject((seed << 40) + 4 * number, split)
    order = np.random.default_rng([seed, number, 1]).permutation(len(world.SCENES))
    count = inputs + GALLERY
    scenes = [world.SCENES[place] for place in order[: count + prompts]]
    photos = [
        world.sample_picture(subject, 100 + place, scene, style="", attribute="")
        for place, scene in enumerate(scenes[:count])
    ]
    truths = [world.sample_picture(subject, 200 + k, scene) for k, scene in enumerate(scenes[count:])]
    return photos, truths


def _write(
    place: Path,
    photos: list[world.PictureSpec],
    truths: list[world.PictureSpec],
    size: int,
    device: str,
    inputs: int,
) -> None:
    out = world.render([*photos, *truths], size, 2, device)
    make_folder(place / "truth")
    files = [place / f"{k:02d}" for k in range(len(photos))]
    files += [place / "truth" / f"{k:02d}" for k in range(len(truths))]
    for file, picture, mask in zip(files, out.pictures.cpu(), out.masks.cpu(), strict=True):
        save_png(file.with_suffix(".png"), to_picture(picture))
        save_png(file.with_suffix(".mask.png"), to_picture(mask.to(torch.uint8).expand(3, -1, -1) * 255))
    subject = photos[0].subject
    record = {
        "class": subject.noun,
        "kind": "nameless" if subject.noun in world.THING_NOUNS else "named",
        "prompts": [spec.caption for spec in truths],
        "inputs": [f"{k:02d}" for k in range(inputs)],
    }
    write_file(place / RECORD, json.dumps(record, indent=1).encode())
