"""Devices, models in memory, and interrupts, on a CPU. `loaded` are the models that were asked for."""

from typing import Any

import torch

loaded: list[Any] = []
interrupt_processing = False


class InterruptProcessingException(Exception):  # noqa: N818  # ComfyUI's name
    pass


def get_torch_device() -> torch.device:
    return torch.device("cpu")


def unet_offload_device() -> torch.device:
    return torch.device("cpu")


def load_models_gpu(
    models: list[Any],
    memory_required: int = 0,
    force_patch_weights: bool = False,
    minimum_memory_required: int | None = None,
    force_full_load: bool = False,
) -> None:
    loaded.extend(models)


def interrupt_current_processing(value: bool = True) -> None:
    global interrupt_processing
    interrupt_processing = value


def throw_exception_if_processing_interrupted() -> None:
    if interrupt_processing:
        interrupt_current_processing(False)
        raise InterruptProcessingException
