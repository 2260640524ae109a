"""What the adapters of transformers models share: loading, the device, the number format, the fingerprint."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoTokenizer

from jedi_diffusion.devices import memory_errors, pick_device, pick_dtype
from jedi_diffusion.errors import ModelError
from jedi_diffusion.synthesis.adapters.checkpoints import Checkpoint, explained, fingerprint, open_transformer
from jedi_diffusion.synthesis.adapters.settings import LocalSettings
from jedi_diffusion.weights import check_finite


class TransformerModel:
    """A model of transformers on its device, with its weights checked.

    part: what it is for, in messages; types: model types that fit; loader: the class that loads it.
    Raises ModelError where the folder cannot be used, UsageError for a device or format that is not there.
    """

    def __init__(
        self, settings: LocalSettings, device: str, part: str, types: Collection[str], loader: Any
    ) -> None:
        self.name = settings.model
        self.device = pick_device(settings.device or device)
        self.dtype = pick_dtype(settings.dtype, self.device, "bfloat16")
        self.offload, self.batch_size = settings.offload, settings.batch_size
        self.checkpoint = open_transformer(settings, part, types)
        self.fingerprint = fingerprint(self.checkpoint.identity, settings, self.dtype)
        with explained(self.name), memory_errors(self.name, self.device, self.batch_size):
            self.model = load_whole(self.checkpoint, loader, self.dtype)
            if not self.offload:
                self.model.to(self.device)

    def tokenizer(self) -> Any:
        """The tokenizer beside the weights."""
        with explained(self.name):
            return AutoTokenizer.from_pretrained(self.checkpoint.folder, trust_remote_code=False)

    def image_processor(self) -> Any:
        """The image processor beside the weights, on Pillow: torchvision is not used."""
        processors: Any = AutoImageProcessor
        with explained(self.name):
            return processors.from_pretrained(self.checkpoint.folder, backend="pil", trust_remote_code=False)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the model is used: weights on the device, no gradients, shortage of memory explained."""
        with memory_errors(self.name, self.device, self.batch_size), torch.inference_mode():
            if self.offload:
                self.model.to(self.device)
            try:
                yield
            finally:
                if self.offload:
                    self.model.to("cpu")


def load_whole(checkpoint: Checkpoint, loader: Any, dtype: torch.dtype) -> Any:
    """The model of a checked folder, in evaluation mode.

    Raises ModelError for weights that are missing or of another shape (transformers would draw them at
    random), or not finite.
    """
    auto = {"trust_remote_code": False} if loader.__name__.startswith("Auto") else {}
    model, info = loader.from_pretrained(
        checkpoint.folder,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # what does not fit is named below
        **auto,
    )
    for fault, found in (
        ("missing", sorted(info["missing_keys"])),
        ("of the wrong shape", sorted(name for name, *_ in info["mismatched_keys"])),
    ):
        if found:
            shown = ", ".join(found[:3]) + (" and more" if len(found) > 3 else "")
            raise ModelError(
                f"{checkpoint.folder} does not fit its model: {len(found)} tensors {fault} ({shown})."
            )
    for name, tensor in model.state_dict().items():
        check_finite(str(checkpoint.folder), name, tensor)
    return model.eval()
