"""What holds a model for `model_management`."""

from typing import Any


class ModelPatcher:
    def __init__(
        self,
        model: Any,
        load_device: Any,
        offload_device: Any,
        size: int = 0,
        weight_inplace_update: bool = False,
    ) -> None:
        self.model, self.load_device, self.offload_device = model, load_device, offload_device
