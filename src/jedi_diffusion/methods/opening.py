"""From the methods of an evaluation recipe to personalizers that are ready to make pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from jedi_diffusion import models
from jedi_diffusion.devices import pick_dtype
from jedi_diffusion.errors import UsageError
from jedi_diffusion.evaluation import recipe
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.evaluation.generate import open_references
from jedi_diffusion.methods import custom_diffusion, diffusekrona, dreambooth, svdiff, textual_inversion
from jedi_diffusion.methods.copy_input import CopyInput
from jedi_diffusion.methods.finetuned import Finetuned, Tuning
from jedi_diffusion.methods.fitting import FitSettings
from jedi_diffusion.methods.ip_adapter import IPAdapter, check_adapter, load_ip_adapter
from jedi_diffusion.methods.joint import Joint
from jedi_diffusion.methods.oracle import Oracle, oracle_key
from jedi_diffusion.methods.text_only import TextOnly
from jedi_diffusion.methods.training_free import TrainingFreeJoint
from jedi_diffusion.personalizer import Personalizer
from jedi_diffusion.pictures import open_picture


def check_methods(methods: Sequence[recipe.Method]) -> None:
    """Refuse what can be judged before anything is rendered or loaded. Raises UsageError, ModelError."""
    for method in methods:
        if not isinstance(method, recipe.CopyMethod | recipe.OracleMethod):
            models.check_model_name(method.model)
        if isinstance(method, recipe.FinetunedMethod):
            tuning_of(method)
        if isinstance(method, recipe.IPAdapterMethod):
            check_adapter(method.weights)


def open_method(
    method: recipe.Method, wanted: EvaluationSet, device: torch.device, fits: Path
) -> Personalizer:
    """Return the method, ready to make pictures; what it fits is kept in the folder `fits`.

    Raises ModelError, UsageError.
    """
    match method.kind:
        case "copy":
            return CopyInput()
        case "oracle":
            return _oracle(wanted)
        case "text_only":
            return TextOnly(*_loaded(method, device))
        case "training_free":
            return TrainingFreeJoint(*_loaded(method, device))
        case "ip_adapter":
            pipe = _through_diffusers(
                lambda dtype: load_ip_adapter(
                    method.model, method.weights, method.image_encoder, method.scale, dtype
                ),
                method,
                device,
            )
            return IPAdapter(pipe, _call(method, method.size))
        case "blip_diffusion":  # loads what diffusers calls deprecated
            from jedi_diffusion.methods.blip_diffusion import BlipDiffusion, load_blip_diffusion

            pipe = _through_diffusers(
                lambda dtype: load_blip_diffusion(method.model, method.vocabulary, dtype), method, device
            )
            return BlipDiffusion(pipe, _call(method, method.size))
        case "dreambooth" | "textual_inversion" | "custom_diffusion" | "svdiff" | "diffusekrona":
            return finetuned(method, *_loaded(method, device), fits)
        case "model":
            return Joint(*_loaded(method, device))


def _loaded(method: recipe.SampledMethod, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """The pipeline of a method, and the arguments of its call."""
    dtype = "float32" if isinstance(method, recipe.FinetunedMethod) else method.dtype
    pipe = models.load_model(method.model, device, pick_dtype(dtype, device))
    return pipe, _call(method, method.size or models.own_size(pipe))


def _through_diffusers(
    load: Callable[[torch.dtype], Any], method: recipe.SampledMethod, device: torch.device
) -> Any:
    """A pipeline that is not a joint one, in the method's number format on its device."""
    models.quiet_libraries()
    pipe = load(pick_dtype(method.dtype, device)).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _call(method: recipe.SampledMethod, size: int) -> dict[str, Any]:
    """Arguments of the pipeline's call."""
    return {**method.arguments(), "height": size, "width": size}


def _oracle(wanted: EvaluationSet) -> Personalizer:
    if not all(subject.truths for subject in wanted.subjects):
        raise UsageError(
            "The method oracle needs a true picture for every prompt; the oracle of photos stands in every "
            "report without it."
        )
    truths = {}
    for group in wanted.groups():
        references = open_references(group[0])
        for case in group:
            picture = open_picture(case.subject.truths[case.prompt].path)
            truths[oracle_key(references, case.text)] = [picture]
    return Oracle(truths)


def tuning_of(method: recipe.FinetunedMethod) -> tuple[Tuning, FitSettings]:
    """What the method changes, and how it is fitted unless the recipe says otherwise. Raises ModelError."""
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


def finetuned(
    method: recipe.FinetunedMethod, pipeline: Any, settings: dict[str, Any], store: Path
) -> Finetuned:
    """The method on a loaded backbone; what it fits is kept in `store`, for these very weights."""
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
    record = {"weights": models.fingerprint(pipeline)}
    return Finetuned(pipeline, tuning, replace(own, **changes), settings, store, record)
