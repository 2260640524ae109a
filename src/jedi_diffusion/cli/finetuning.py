"""Finetuning methods of a recipe, put together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jedi_diffusion.evaluation.recipe import FinetunedMethod
    from jedi_diffusion.methods.finetuned import Finetuned, Tuning
    from jedi_diffusion.methods.fitting import FitSettings

MEGABYTE = 10**6


def tuning_of(method: FinetunedMethod) -> tuple[Tuning, FitSettings]:
    """What the method changes, and how it is fitted unless the recipe says otherwise. Raises ModelError."""
    from jedi_diffusion.evaluation import recipe
    from jedi_diffusion.methods import custom_diffusion, diffusekrona, dreambooth, svdiff, textual_inversion

    match method:
        case recipe.DreamBoothMethod(rank=None):
            return dreambooth.DreamBooth(), dreambooth.FULL
        case recipe.DreamBoothMethod(rank=rank):
            return dreambooth.DreamBooth(rank=rank), dreambooth.LORA
        case recipe.TextualInversionMethod():
            return textual_inversion.TextualInversion(), textual_inversion.SETTINGS
        case recipe.CustomDiffusionMethod():
            return custom_diffusion.CustomDiffusion(), custom_diffusion.SETTINGS
        case recipe.SVDiffMethod():
            return svdiff.SVDiff(), svdiff.SETTINGS
        case recipe.DiffuseKronAMethod(factor=factor):
            return diffusekrona.DiffuseKronA(factor=factor or -1), diffusekrona.SETTINGS
    raise TypeError(f"{type(method).__name__} is no finetuning method")


def finetuned(method: FinetunedMethod, pipeline: Any, settings: dict[str, Any], store: Path) -> Finetuned:
    """The method on a loaded backbone; what it fits is kept in `store`, for these very weights."""
    from jedi_diffusion.methods.finetuned import Finetuned
    from jedi_diffusion.models import fingerprint

    tuning, own = tuning_of(method)
    given = {
        "steps": method.fit_steps,
        "learning_rate": method.learning_rate,
        "batch": method.fit_batch,
        "prior_pictures": method.prior_pictures,
        "prior_weight": method.prior_weight,
        "seed": method.fit_seed,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    record = {"weights": fingerprint(pipeline)}
    return Finetuned(pipeline, tuning, replace(own, **changes), settings, store, record)


def describe(name: str, store: Path) -> str:
    """The fits of a method that are stored, their mean time and size, in a line. Raises ModelError."""
    from jedi_diffusion.methods.finetuned import read_reports

    reports = read_reports(store)
    if not reports:
        return f"{name}: no fits"
    seconds = sum(each.seconds for each in reports) / len(reports)
    stored = sum(each.stored_bytes for each in reports) / len(reports)
    return f"{name}: fitted {len(reports)} times, {seconds:.1f} s and {stored / MEGABYTE:.3f} MB on average"
