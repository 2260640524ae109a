"""Sheets of pictures that show how far a training run is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.networks.reconstruction import reconstruct
from jedi_diffusion.pictures import contact_sheet, fit_square, save_png
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.sets import ImageSet

STEPS = 25
GUIDANCE = 3.0


def reconstruction_sheet(
    autoencoder: PatchAutoencoder, sets: Sequence[ImageSet], path: Path, device: str
) -> None:
    """Each set's pictures over their reconstructions, with the PSNR."""
    rows: list[list[tuple[Image.Image, str] | None]] = []
    for image_set in sets:
        decoded, quality = reconstruct(autoencoder, image_set.pictures)
        rows.append([(picture, "original") for picture in image_set.pictures])
        rows.append([(p, f"{q:.1f} dB") for p, q in zip(decoded, quality.tolist(), strict=True)])
    save_png(path, contact_sheet(rows, cell=128))


def sample_sheet(
    pipeline: JeDiPipeline, sets: Sequence[ImageSet], resolution: int, path: Path | None
) -> None:
    """One row a held-out set: its first picture as the reference, the true second one, both couplings'
    pictures. Without a path they are made and not written: a sharded model runs on all processes.
    """
    rows: list[list[tuple[Image.Image, str] | None]] = []
    for number, image_set in enumerate(sets):
        reference, truth = (fit_square(picture, resolution) for picture in image_set.pictures[:2])
        row: list[tuple[Image.Image, str] | None] = [
            (reference, "reference"),
            (truth, f"true: {image_set.captions[1]}"),
        ]
        for coupling in ("joint", "cached"):
            made: Any = pipeline(
                prompt=[image_set.captions[1]],
                references=[reference],
                reference_prompts=image_set.info.get("name", image_set.captions[0]),
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                coupling=coupling,
                height=resolution,
                width=resolution,
                generator=torch.Generator().manual_seed(number),
            )
            row.append((made.images[0], coupling))
        rows.append(row)
    if path is not None:
        save_png(path, contact_sheet(rows, cell=128))
