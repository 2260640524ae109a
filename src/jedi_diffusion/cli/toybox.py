"""`jedi toybox`: sets of the procedural world as files."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from tqdm import tqdm

from jedi_diffusion.files import free_suffix, make_folder, with_suffix, write_file
from jedi_diffusion.options import check_options
from jedi_diffusion.pictures import contact_sheet, save_png

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.sets import ImageSet

SHEET = "sheet.png"
SHEET_SETS = 24


@dataclass(frozen=True)
class ToyboxOptions:
    """Write sets of the procedural world: a folder each with pictures, masks, captions; a contact sheet.

    Everything is a function of the seed. set.json tells captions, scenes, styles and cameras. Existing
    sets are kept: a run whose names are taken adds -2, -3 ...
    """

    out: str
    """Folder for the sets."""
    sets: int = 12
    """How many."""
    split: Literal["train", "held_out", "held_out_classes"] = "train"
    """Training subjects, other individuals of the same classes, or other classes."""
    size: int = 4
    """Pictures in a set."""
    resolution: int = 128
    """Side of a picture in pixels."""
    seed: int = 0
    """Set k is drawn from seed + k."""
    overwrite: bool = False
    """Replace sets of earlier runs."""


def run(arguments: list[str]) -> None:
    """Render the sets and write them. Raises JeDiError."""
    given = tyro.cli(ToyboxOptions, args=arguments, prog="jedi toybox")
    check(given)
    from jedi_toybox import world

    folder = make_folder(given.out)
    seeds = range(given.seed, given.seed + given.sets)
    names = [f"{seed:05d}-{world.sample_subject(seed, given.split).noun.replace(' ', '-')}" for seed in seeds]
    suffix = "" if given.overwrite else free_suffix(folder, [SHEET, *names])
    rows: list[list[tuple[Image.Image, str] | None]] = []
    for seed, name in zip(tqdm(seeds, unit="set", file=sys.stderr), names, strict=True):
        image_set = world.sample_set(seed, given.split, given.size, given.resolution)
        write_set(make_folder(folder / f"{name}{suffix}"), image_set)
        if len(rows) < SHEET_SETS:
            rows.append(list(zip(image_set.pictures, image_set.captions, strict=True)))
    sheet = folder / with_suffix(SHEET, suffix)
    save_png(sheet, contact_sheet(rows, title=f"Toybox, split {given.split}, seeds from {given.seed}"))
    print(f"{given.sets} sets are in {folder}")
    print(f"Contact sheet: {sheet}")


def check(given: ToyboxOptions) -> None:
    """Raise UsageError for numbers out of range."""
    limits = {"sets": (1, 1_000_000), "size": (1, 16), "resolution": (16, 1024), "seed": (0, 2**31)}
    check_options(given, limits)


def write_set(folder: Path, image_set: ImageSet) -> None:
    """Picture k as k.png, its subject's mask (255 on the subject) as k.mask.png, the rest in set.json."""
    for number, picture in enumerate(image_set.pictures):
        save_png(folder / f"{number}.png", picture, {"caption": image_set.captions[number]})
    for number, mask in enumerate(image_set.masks or ()):
        save_png(folder / f"{number}.mask.png", mask)
    record = {"captions": image_set.captions, **image_set.info}
    write_file(folder / "set.json", json.dumps(record, indent=2, ensure_ascii=False).encode())
