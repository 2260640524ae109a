"""`jedi toybox photos`: real photos as references, and the autoencoder's PSNR on them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import tyro

from jedi_diffusion.cli import models, naming
from jedi_diffusion.cli.notices import show_notices
from jedi_diffusion.cli.options import Repeated
from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.methods.joint import Joint
from jedi_diffusion.pictures import save_png

SHEET, FIGURES = "photos.png", "photos.json"


@dataclass(frozen=True)
class PhotosOptions:
    """A contact sheet of real photos: each beside the autoencoder's reconstruction and new pictures of it.

    The bundled model has seen no photo; the sheet shows what it carries over.
    """

    folder: tyro.conf.Positional[str]
    """Folder of photos, or of subfolders, of which the first picture each is taken."""
    out: str
    """Folder for the sheet and the figures."""
    model: str = "toybox"
    """"toybox" (bundled), a folder, or a Hub id."""
    prompt: Repeated = ()
    """What to show; three scenes of the toybox if not given."""
    steps: int = 25
    """Denoising steps."""
    guidance: float = 3.0
    """Scale of eq. 3."""
    coupling: Literal["joint", "cached"] | None = None
    """The paper's form, or references computed once and reused; the model's own if not given."""
    seed: int = 0
    """The same noise for every photo."""
    size: int | None = None
    """Side of the pictures in pixels; the model's own if not given."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format; float32, on CUDA bfloat16, if not given."""
    overwrite: bool = False
    """Replace files of earlier runs."""


def run(arguments: list[str]) -> None:
    """Read the photos, run the model on them, write the sheet, print the PSNR. Raises JeDiError."""
    given = tyro.cli(PhotosOptions, args=arguments, prog="jedi toybox photos")
    check(given)
    show_notices()
    models.check_model_name(given.model)
    from jedi_diffusion.model.reconstruction import describe_psnr
    from jedi_diffusion.toybox import photos

    photos.find_photos(given.folder)
    folder = make_folder(given.out)
    suffix = "" if given.overwrite else naming.free_suffix(folder, [SHEET, FIGURES])
    device = models.pick_device(given.device)
    pipe = models.load_model(given.model, device, models.pick_dtype(given.dtype, device))
    size = given.size or models.own_size(pipe)
    found = photos.read_photos(given.folder, size)
    settings = {
        "num_inference_steps": given.steps,
        "guidance_scale": given.guidance,
        "coupling": given.coupling,
        "height": size,
        "width": size,
    }
    personalizer = Joint(pipe, settings)
    made = photos.photo_sheet(found, personalizer, pipe.vae, given.prompt or photos.PROMPTS, given.seed)
    sheet = folder / naming.with_suffix(SHEET, suffix)
    save_png(sheet, made.sheet)
    decibels = [round(value, 3) for value in made.quality.tolist()]
    figures = {
        "psnr_mean": round(float(made.quality.mean()), 3),
        "psnr": dict(zip([photo.name for photo in found], decibels, strict=True)),
        "size": size,
        **settings,
    }
    write_file(folder / naming.with_suffix(FIGURES, suffix), json.dumps(figures, indent=2).encode())
    print(f"PSNR on {len(found)} photos at {size}x{size}: {describe_psnr(made.quality)}")
    print(f"Contact sheet: {sheet}")


def check(given: PhotosOptions) -> None:
    """Raises UsageError for numbers out of range."""
    limits = {"steps": (1, 1000), "guidance": (0.0, 100.0), "seed": (0, 2**31), "size": (16, 1024)}
    for name, (low, high) in limits.items():
        value = getattr(given, name)
        if value is not None and not low <= value <= high:  # also false for NaN
            raise UsageError(f"--{name} is {value}, but must lie between {low} and {high}.")
