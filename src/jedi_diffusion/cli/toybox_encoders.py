"""`jedi toybox encoders`: trains the encoders that `jedi toybox score` judges with."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jedi_diffusion import devices
from jedi_diffusion.files import make_folder
from jedi_diffusion.options import check_options


@dataclass(frozen=True)
class EncodersOptions:
    """Train the scorer's encoders on toybox subjects of their own, which no model is trained or scored on.

    Needed only when the world has changed; `jedi toybox score --encoders OUT` uses the result. Stopped, the
    same command goes on from OUT/training.
    """

    out: str
    """Folder for scorer.safetensors."""
    minutes: float = 4.0
    """Time for training, after rendering."""
    steps: int | None = None
    """Takes the place of --minutes: the same steps and seed give the same weights on the same machine."""
    subjects: int = 3000
    """Subjects to train on, four pictures each."""
    judges: int = 400
    """Held-out subjects on which the accuracy is measured."""
    seed: int = 0
    """Other seeds give other subjects and weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""


def run(arguments: list[str]) -> None:
    """Train, measure, write. Raises JeDiError."""
    given = tyro.cli(EncodersOptions, args=arguments, prog="jedi toybox encoders")
    check(given)
    make_folder(given.out)
    from jedi_toybox.encoder_training import EncoderRecipe, judge, train
    from jedi_toybox.encoders import Encoders, save_encoders

    device = str(devices.pick_device(given.device))
    recipe = EncoderRecipe(given.seed, given.subjects, minutes=given.minutes, steps=given.steps)
    progress = Path(given.out) / "training"
    network, record = train(recipe, device, progress)
    accuracy = judge(Encoders(network, device), given.judges, device)
    path = save_encoders(network, given.out, {**record, "held_out": accuracy})
    shutil.rmtree(progress)
    print(json.dumps(accuracy))
    print(f"Encoders: {path}")


def check(given: EncodersOptions) -> None:
    """Raise UsageError for numbers out of range."""
    limits = {
        "minutes": (0.01, 1e4),
        "steps": (1, 1_000_000),
        "subjects": (32, 1_000_000),
        "judges": (2, 100_000),
        "seed": (0, 2**31),
    }
    check_options(given, limits)
