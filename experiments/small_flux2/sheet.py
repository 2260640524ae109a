"""Draw subjects that a small FLUX.2 has never seen: reference, true picture, and its own with and without it.

python -m experiments.small_flux2.sheet --model runs/small-flux2/run/model --out sheet.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image

from jedi_diffusion.pictures import contact_sheet, save_png
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_toybox.source import ToyboxSource

SIDE, SHOWN = 64, 128
"""Pixels of the model's pictures, and of those on the sheet."""


@dataclass(frozen=True)
class Options:
    """A row for each subject."""

    model: str
    """A folder."""
    out: str
    """The sheet, a PNG file."""
    subjects: int = 5
    """How many."""
    steps: int = 16
    """Of sampling."""
    guidance: float = 2.0
    """On the caption."""
    image_guidance: float = 1.5
    """On the reference."""


def main() -> None:
    given = tyro.cli(Options)
    pipe = JeDiPipeline.from_pretrained(given.model, dtype=torch.float32)
    source = ToyboxSource(5, alike=1.0, split="held_out", compiled=False)
    sets = source.sets(0, given.subjects, 2, SIDE, "cpu")
    rows: list[list[tuple[Image.Image, str] | None]] = []
    for number, captions in enumerate(sets.captions):
        reference, truth = (Image.fromarray(each.permute(1, 2, 0).numpy()) for each in sets.pictures[number])
        row: list[tuple[Image.Image, str] | None] = [
            (_enlarged(reference), "reference"),
            (_enlarged(truth), captions[1]),
        ]
        for name, shown in (("joint", [reference]), ("cached", [reference]), ("no reference", [])):
            made: Any = pipe(
                captions[1],
                shown,
                coupling="cached" if name == "cached" else "joint",
                height=SIDE,
                width=SIDE,
                num_inference_steps=given.steps,
                guidance_scale=given.guidance,
                image_guidance_scale=given.image_guidance if shown else 1.0,
                generator=torch.Generator().manual_seed(number),
            )
            row.append((_enlarged(made.images[0]), name))
        rows.append(row)
    save_png(Path(given.out), contact_sheet(rows, cell=SHOWN))


def _enlarged(picture: Image.Image) -> Image.Image:
    return picture.resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
