"""`jedi showroom masks`: trains the network that finds the subject of a photo."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jedi_diffusion import devices
from jedi_diffusion.files import make_folder
from jedi_diffusion.options import check_options

if TYPE_CHECKING:
    from jedi_diffusion.data.source import SetSource

FILE = "subject_mask.safetensors"


@dataclass(frozen=True)
class MasksOptions:
    """Train the network that finds a photo's subject, on composed pictures, whose masks are exact.

    The package ships one; this makes another. Needs the extra `imagenet`, whose network it starts from.
    Stopped, the same command goes on from OUT/training.
    """

    packages: str
    """Folder that holds the downloaded packages."""
    folder: str
    """Folder that `jedi showroom build` filled."""
    out: str
    """Folder for subject_mask.safetensors."""
    pictures: int = 6000
    """Pictures to train on, each of a set of its own."""
    share: float = 0.75
    """Share of them that are the showroom's; the others are the toybox's."""
    minutes: float = 20.0
    """Time for training, after rendering."""
    steps: int | None = None
    """Takes the place of --minutes: the same steps and seed give the same weights on the same machine."""
    judges: int = 300
    """Pictures of held-out subjects of either world on which the masks are measured."""
    seed: int = 0
    """Other seeds give other pictures and weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""


def run(arguments: list[str]) -> None:
    """Train, measure, write. Raises JeDiError."""
    given = tyro.cli(MasksOptions, args=arguments, prog="jedi showroom masks")
    check(given)
    make_folder(given.out)
    from jedi_diffusion.vision.subject_mask import SubjectMaskNetwork
    from jedi_showroom.mask_training import (
        MaskRecipe,
        intersection_over_union,
        mask_trainer,
        render_pool,
        save_network,
    )
    from jedi_showroom.mixed import MixedSource
    from jedi_showroom.source import ShowroomSource
    from jedi_toybox.source import ToyboxSource

    device = str(devices.pick_device(given.device))
    recipe = MaskRecipe(given.pictures, seed=given.seed, minutes=given.minutes, steps=given.steps)
    places = Path(given.packages), Path(given.folder)
    source = MixedSource(ShowroomSource(*places, given.seed), ToyboxSource(given.seed), given.share)
    progress = Path(given.out) / "training"
    trainer = mask_trainer(recipe, render_pool(source, 0, given.pictures), device, progress)
    trainer.train()
    network = trainer.task.network.cpu()
    assert isinstance(network, SubjectMaskNetwork)
    held_out: dict[str, SetSource] = {
        "showroom": ShowroomSource(*places, given.seed, split="held_out"),
        "toybox": ToyboxSource(given.seed, split="held_out"),
    }
    record: dict[str, object] = {**asdict(recipe), "steps": trainer.step}
    for name, judges in held_out.items():
        found = intersection_over_union(network, render_pool(judges, 0, given.judges))
        record[f"{name}_iou"] = round(found.mean().item(), 4)
        record[f"{name}_below_half"] = round((found < 0.5).float().mean().item(), 4)
    path = save_network(network, Path(given.out) / FILE, record)
    shutil.rmtree(progress)
    print(json.dumps(record))
    print(f"Network: {path}")


def check(given: MasksOptions) -> None:
    """Raise UsageError for numbers out of range."""
    limits = {
        "pictures": (16, 1_000_000),
        "share": (0, 1),
        "minutes": (0.01, 1e4),
        "steps": (1, 1_000_000),
        "judges": (2, 100_000),
        "seed": (0, 2**31),
    }
    check_options(given, limits)
