"""From the name of a model to a pipeline that is ready to sample or to be trained on, and what identifies its
weights.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.parts import setting

if TYPE_CHECKING:  # the command line reads its options without torch
    import torch

    from jedi_diffusion.pipeline import JeDiPipeline

logger = logging.getLogger(__name__)

JOINT = "JeDiPipeline"
SINGLE_FILES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
}


def check_model_name(name: str, lora: Sequence[str] = ()) -> None:
    """Raise ModelError if `name` is neither "toybox", an existing model folder, nor the form of a Hub id.

    lora: adapters on it, as `load_model` takes them, which are checked as `with_scale` does.
    """
    for each in lora:
        with_scale(each)
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


def load_model(name: str, device: torch.device, dtype: torch.dtype, lora: Sequence[str] = ()) -> JeDiPipeline:
    """Load the pipeline called `name` ("toybox", a diffusers folder, a Hub id) on `device` in `dtype`.

    A single-image model is made joint without training, and says so. lora: adapters to put on it, each a
    folder or file, "folder:0.7" with a scale. Raises ModelError, UsageError for a scale that is no number.
    """
    from jedi_diffusion.weights import load_errors

    check_model_name(name)
    quiet_libraries()
    with load_errors(name):
        if name == "toybox":
            from jedi_toybox import load_pipeline

            pipe = load_pipeline(dtype)
        else:
            kind = class_of(name)
            if not is_ready(kind):
                logger.warning(
                    "%s is a single-image model (%s). It runs untrained, with coupled attention and "
                    "replacement alone; train it on sets for the full method.",
                    name,
                    kind,
                )
            pipe = open_base(name, dtype)
        if lora:
            put_adapters(pipe, lora)
        pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def put_adapters(pipe: JeDiPipeline, lora: Sequence[str]) -> None:
    """Put adapters on a pipeline, all of them active. lora: as `load_model` takes it."""
    scales = {}
    for number, (source, scale) in enumerate(map(with_scale, lora)):
        scales[f"lora_{number}"] = scale
        with warnings.catch_warnings():  # peft's of a second adapter, which is what was asked for
            warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
            pipe.load_lora_weights(source, adapter_name=f"lora_{number}")
    pipe.set_adapters([*scales], adapter_weights=[*scales.values()])


def with_scale(lora: str) -> tuple[str, float]:
    """Return the adapters that "folder:0.7" names, and their scale; 1 where it says none.

    Raises ModelError where there are no such files, UsageError for a scale that is no number.
    """
    source, colon, scale = lora.rpartition(":")
    if not colon or Path(lora).exists():
        source, scale = lora, "1"
    try:
        factor = float(scale)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise UsageError(f"--lora is {lora!r}, but behind its last colon must be a number, such as 0.7.")
    if not Path(source).exists():
        raise ModelError(f"There are no adapters {source}: give a folder that `jedi train` wrote, or a file.")
    return source, factor


def placed(lora: Sequence[str]) -> list[str]:
    """Return adapters by absolute paths, for records and for other working folders."""
    return [f"{Path(source).resolve()}:{scale:g}" for source, scale in map(with_scale, lora)]


def open_base(name: str, dtype: torch.dtype | None = None) -> JeDiPipeline:
    """Load a joint model, or make a single-image one joint, on the CPU; None is float32.

    name: a diffusers folder or a Hub id. Raises ModelError.
    """
    import torch

    from jedi_diffusion.pipeline import JeDiPipeline
    from jedi_diffusion.weights import load_errors

    with load_errors(name):
        ready = is_ready(class_of(name))
        load = JeDiPipeline.from_pretrained if ready else JeDiPipeline.from_single_image_model
        return load(name, dtype=dtype or torch.float32)


def outline(name: str) -> JeDiPipeline:
    """Return the pipeline that a model's configuration files describe: its sizes and settings, no weights.

    Networks are on torch's meta device, and there are no text encoders, so that it makes no pictures.
    name: a diffusers folder or a Hub id. Raises ModelError.
    """
    import inspect

    import diffusers

    from jedi_diffusion.backbones import PUBLISHED, SINGLE_IMAGE, network_class, skeleton
    from jedi_diffusion.flops import autoencoder_skeleton
    from jedi_diffusion.pipeline import JeDiPipeline
    from jedi_diffusion.weights import load_errors, model_index

    check_model_name(name)
    with load_errors(name):
        index = model_index(name)
        part, _ = network_class(index, name)
        kind = setting(index, "_class_name", str, "")
        settings = inspect.signature(JeDiPipeline.__init__).parameters
        given = {key: value for key, value in index.items() if key in settings}
        own = {key: value for key, value in given.items() if not isinstance(value, list)}
        scheduler = index.get("scheduler")
        if not isinstance(scheduler, list) or not hasattr(diffusers, str(scheduler[-1])):
            raise ModelError(f"The model_index.json of {name} names no scheduler that diffusers has.")
        parts = {
            "vae": autoencoder_skeleton(name),
            "scheduler": getattr(diffusers, scheduler[-1]).from_pretrained(name, subfolder="scheduler"),
            **dict.fromkeys(("unet", "text_encoder", "tokenizer")),
            part: skeleton(name),
        }
        return JeDiPipeline(**{**parts, **own, **PUBLISHED.get(kind, {}), **SINGLE_IMAGE.get(kind, {})})


def is_ready(kind: str) -> bool:
    """Return whether models of this pipeline read references as they are."""
    from jedi_diffusion.backbones import PUBLISHED

    return kind == JOINT or kind in PUBLISHED


def class_of(name: str) -> str:
    """Return the class that a model's model_index.json names."""
    from jedi_diffusion.weights import model_index

    return setting(model_index(name), "_class_name", str, "")


def quiet_libraries() -> None:
    """Silence loading bars and advice to developers, which would bury what this program has to say."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # before diffusers, which imports the rest of transformers
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


def own_size(pipe: JeDiPipeline) -> int:
    """Return the side in pixels of the pictures that the model was made for.

    Raises UsageError if it does not say.
    """
    latent, width = pipe.backbone.latent_size
    if latent is None or latent != width:
        raise UsageError("The model does not say its own size; give one with --size.")
    return latent * pipe.vae_scale_factor


def fingerprint(pipe: JeDiPipeline) -> str:
    """Return SHA-256 over the names, types, shapes and bytes of all weights, and the scales of adapters."""
    import torch

    from jedi_diffusion.weights import add_weights, scales_of_adapters

    digest = hashlib.sha256()
    for part, module in sorted(pipe.components.items()):
        if isinstance(module, torch.nn.Module):
            add_weights(digest, part, module)
            for name, scales in scales_of_adapters(module):
                digest.update(f"{part}.{name} {scales}".encode())
    return digest.hexdigest()


def set_scheduler(pipe: JeDiPipeline, name: str) -> None:
    """Exchange the scheduler for the one called `name` (of SCHEDULERS), with the model's noise schedule."""
    import diffusers

    if name != "model":
        from jedi_diffusion.joint.process import Flow, process_of

        if isinstance(process_of(pipe.scheduler), Flow):
            raise UsageError(f"The model is a flow, which --scheduler {name} cannot sample: leave it out.")
        pipe.scheduler = getattr(diffusers, SCHEDULERS[name]).from_config(pipe.scheduler.config)
