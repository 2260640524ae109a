"""DreamBench in small: a folder in the layout of google/dreambooth, and pictures for it."""

from pathlib import Path

import numpy as np
from PIL import Image

from jedi_diffusion.evaluation.cases import EvaluationSet

LIST = """Classes

subject_name,class
{classes}

Prompts

Object Prompts

prompt_list = [
'a {{0}} {{1}} in the snow'.format(unique_token, class_token),
'a green {{0}} {{1}}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {{0}} {{1}} wearing a red hat'.format(unique_token, class_token),
'a blue {{0}} {{1}}'.format(unique_token, class_token)
]
"""
SUBJECTS = {"dog6": ("dog", 3), "can": ("can", 4), "bear_plushie": ("stuffed animal", 5)}
"""Class and number of photos."""


def picture(seed: int, size: int = 24) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)


def make_clone(folder: Path) -> Path:
    """A clone with three subjects."""
    dataset = folder / "dataset"
    dataset.mkdir(parents=True)
    classes = "\n".join(f"{name},{noun}" for name, (noun, _) in SUBJECTS.items())
    (dataset / "prompts_and_classes.txt").write_text(LIST.format(classes=classes))
    for number, (name, (_, photos)) in enumerate(SUBJECTS.items()):
        (dataset / name).mkdir()
        for photo in range(photos):
            picture(100 * number + photo).save(dataset / name / f"{photo:02d}.jpg")
    return folder


def make_pictures(folder: Path, wanted: EvaluationSet) -> Path:
    for number, case in enumerate(wanted.cases):
        path = folder / f"{case.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(5000 + number).save(path)
    return folder
