"""The parts of a pipeline that training leaves as they are: autoencoder, text encoders, tokenizers."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.weights import add_weights

CROP = "centre square"
"""What `data.transforms.square_set` keeps of a picture."""
VOLATILE = ("architectures", "dtype", "torch_dtype", "transformers_version")
"""Keys of a text encoder's configuration that say nothing about its output."""


def frozen_modules(pipeline: JeDiPipeline) -> dict[str, nn.Module]:
    """By name; text_encoder_2 and _3 where there are such."""
    names = ("vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    parts = {name: getattr(pipeline, name) for name in names}
    return {name: module for name, module in parts.items() if module is not None}


def encoders_fingerprint(pipeline: JeDiPipeline, resolution: int) -> str:
    """Return SHA-256 over all that turns pictures and captions into latents and embeddings.

    Weights and settings of the frozen modules as they are now (load them in float32), tokenizers, how an
    empty caption is read, the side of the pictures in pixels, and their crop.
    """
    digest = hashlib.sha256()
    pipeline_config: Any = pipeline.config
    facts: dict[str, Any] = {
        "resolution": resolution,
        "crop": CROP,
        "force_zeros_for_empty_prompt": bool(pipeline_config.force_zeros_for_empty_prompt),
    }
    for name, module in frozen_modules(pipeline).items():
        facts[name] = _settings(module)
        add_weights(digest, name, module)
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        if getattr(pipeline, name) is not None:
            facts[name] = _reading(getattr(pipeline, name))
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _settings(module: Any) -> dict[str, Any]:
    """Return a network's class and configuration, without what differs between copies and releases."""
    config = module.config
    given = config.to_diff_dict() if hasattr(config, "to_diff_dict") else dict(config)
    kept = {
        key: value
        for key, value in given.items()
        if value is not None and not key.startswith("_") and key not in VOLATILE
    }
    return {"class": type(module).__name__, **kept}


def _reading(tokenizer: Any) -> dict[str, Any]:
    """Return what a tokenizer makes numbers of captions by."""
    template = {"template": tokenizer.chat_template} if tokenizer.chat_template else {}
    return {
        **template,
        "model": json.loads(tokenizer.backend_tokenizer.to_str())["model"],
        "length": tokenizer.model_max_length,
        "pad": tokenizer.pad_token_id,
        "whole_words": tokenizer.init_kwargs.get("whole_words"),
    }


def freeze(pipeline: JeDiPipeline, device: torch.device | str, precision: torch.dtype) -> None:
    """Put the frozen modules on the device, in this precision, without gradients."""
    for module in frozen_modules(pipeline).values():
        module.requires_grad_(False).eval().to(device, precision)


@contextmanager
def on_device(pipeline: JeDiPipeline, device: torch.device) -> Iterator[None]:
    """Inside, the frozen modules are on the device, for sampling; after it where they were."""
    before = {name: next(module.parameters()).device for name, module in frozen_modules(pipeline).items()}
    try:
        for module in frozen_modules(pipeline).values():
            module.to(device)
        yield
    finally:
        for name, module in frozen_modules(pipeline).items():
            module.to(before[name])
