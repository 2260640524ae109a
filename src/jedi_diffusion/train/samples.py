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
"""At most; a model that takes fewer by itself gets its own."""


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
    pictures, by the model's own guidance, and without captions of references where it was published so.
    Without a path they are made and not written: a sharded model runs on all processes.
    """
    rows: list[list[tuple[Image.Image, str] | None]] = []
    own, private = pipeline.own_sampling, pipeline.backbone.tells_captioned
    for number, image_set in enumerate(sets):
        name = None if private else image_set.info.get("name", image_set.captions[0])
        reference, truth = (fit_square(picture, resolution) for picture in image_set.pictures[:2])
        row: list[tuple[Image.Image, str] | None] = [
            (reference, "reference"),
            (truth, f"true: {image_set.captions[1]}"),
        ]
        for coupling in ("joint", "cached"):
            made: Any = pipeline(
                prompt=[image_set.captions[1]],
                references=[reference],
                reference_prompts=name,
                num_inference_steps=min(STEPS, own.steps),
                guidance_scale=own.guidance,
                coupling=coupling,
                height=resolution,
                width=resolution,
                generator=torch.Generator().manual_seed(number),
            )
            row.append((made.images[0], coupling))
        rows.append(row)
    if path is not None:
        save_png(path, contact_sheet(rows, cell=128))
