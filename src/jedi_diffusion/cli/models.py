"""From the name of a model to a pipeline that is ready to sample, and what identifies its weights."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jedi_diffusion.errors import JeDiError, ModelError, UsageError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

SINGLE_FILES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
}


def check_model_name(name: str) -> None:
    """Raises ModelError if `name` is neither "toybox", an existing model folder, nor the form of a Hub id."""
    path = Path(name)
    if name == "toybox" or (path / "model_index.json").is_file():
        return
    if path.suffix in SINGLE_FILES and not path.is_dir():
        raise ModelError(
            f"{name} is a single weights file, but a model here is a diffusers folder of safetensors. "
            "Convert it with diffusers' scripts/convert_original_stable_diffusion_to_diffusers.py "
            "--to_safetensors, on a machine where nothing is lost if the file is hostile."
        )
    if path.exists():
        raise ModelError(f"{name} holds no model_index.json, so it is not a diffusers model folder.")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise ModelError(
            f"There is no model {name!r}: give toybox, an existing folder, or a Hub id (owner/name)."
        )


def load_model(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline called `name` ("toybox", a diffusers folder, a Hub id) on `device` in `dtype`.

    A single-image model is made joint without training, and says so. Raises ModelError.
    """
    check_model_name(name)
    quiet_libraries()
    try:
        pipe = _load(name, dtype).to(device)
    except JeDiError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"The model {name} cannot be loaded: {reason}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def quiet_libraries() -> None:
    """Loading bars and advice to developers would bury what this program has to say."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # before diffusers, which imports the rest of transformers
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


def _load(name: str, dtype: torch.dtype) -> Any:
    from jedi_diffusion.pipeline import JeDiPipeline

    if name == "toybox":
        from jedi_toybox import load_pipeline

        return load_pipeline(dtype)
    index: Any = JeDiPipeline.load_config(name)
    kind = index.get("_class_name")
    if kind == JeDiPipeline.__name__:
        return JeDiPipeline.from_pretrained(name, dtype=dtype)
    logger.warning(
        "%s is a single-image model (%s). It runs untrained, with coupled attention and replacement alone; "
        "train it on sets for the full method.",
        name,
        kind,
    )
    return JeDiPipeline.from_single_image_model(name, dtype=dtype)


def own_size(pipe: Any) -> int:
    """Side in pixels of the pictures that the model was made for. Raises UsageError if it does not say."""
    latent = pipe.unet.config.sample_size
    if not isinstance(latent, int):
        raise UsageError("The model does not say its own size; give one with --size.")
    return latent * pipe.vae_scale_factor


def fingerprint(pipe: Any) -> str:
    """SHA-256 over the names, types, shapes and bytes of all weights."""
    import torch

    from jedi_diffusion.weights import add_weights

    digest = hashlib.sha256()
    for part, module in sorted(pipe.components.items()):
        if isinstance(module, torch.nn.Module):
            add_weights(digest, part, module)
    return digest.hexdigest()


def set_scheduler(pipe: Any, name: str) -> None:
    """Exchange the scheduler for the one called `name` (of SCHEDULERS), with the model's noise schedule."""
    import diffusers

    if name != "model":
        pipe.scheduler = getattr(diffusers, SCHEDULERS[name]).from_config(pipe.scheduler.config)


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA, else MPS, else the CPU. Raises UsageError if absent."""
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in present.items() if there)
    if not present[name]:
        raise UsageError(f"This machine has no {name} device that torch can use; take --device auto.")
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format called `name`; "auto" is bfloat16 (or float16) on CUDA and float32 elsewhere."""
    import torch

    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]
