"""Pictures as files that say by which model they were made, and if they are PNGs with what settings."""

from __future__ import annotations

from typing import Any

from PIL import Image

from jedi_diffusion import __version__, credentials
from jedi_diffusion.app.jobs import Job
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.credentials import Seal, unsigned
from jedi_diffusion.errors import UsageError
from jedi_diffusion.pictures import lossy_bytes, png_bytes


def made_with(card: ModelCard) -> str:
    """Return the mark that every picture of a server carries."""
    return credentials.made_with(card.name)


def parameters_of(job: Job, number: int, card: ModelCard) -> dict[str, Any]:
    """Return what decides how picture `number` (from 0) of a job looks, as plain JSON values; of the
    references, which are nobody else's business, only how many there were."""
    ask = job.ask
    return {
        "program": f"jedi-diffusion {__version__}",
        "made_with": made_with(card),
        "model": {"name": card.name, "fingerprint": card.fingerprint, "scheduler": card.scheduler},
        "options": ask.sampling.model_dump() | {"reference_prompt": list(ask.captions)},
        "references": [{} for _ in ask.digests],
        "prompt": ask.prompts[number],
        "seed": ask.seeds[number],
    }


def file_of(job: Job, number: int, card: ModelCard, seal: Seal = unsigned) -> bytes:
    """Return picture `number` (from 0) in the job's format. Raises UsageError while it is not there, what
    `seal` raises."""
    picture = job.pictures[number] if 0 <= number < len(job.pictures) else None
    if picture is None:
        raise UsageError(f"Picture {number} of this job is not there (yet); its state is {job.state}.")
    return encoded(picture.open(), job, number, card, seal)


def encoded(picture: Image.Image, job: Job, number: int, card: ModelCard, seal: Seal = unsigned) -> bytes:
    """Return a picture, finished or rough, as picture `number` of a job is given out.

    Raises what `seal` raises.
    """
    output, mark = job.ask.output, made_with(card)
    if output.format == "png":
        return seal(png_bytes(picture, parameters_of(job, number, card), mark))
    return seal(lossy_bytes(picture, output.format, output.quality, mark))
