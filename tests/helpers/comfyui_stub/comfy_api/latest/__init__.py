"""The part of ComfyUI's V3 schema that our nodes use; test_real_comfyui.py holds it against the real one."""

from abc import ABC, abstractmethod
from typing import Any

from . import _io as io
from . import _ui as ui


class ComfyExtension(ABC):
    @abstractmethod
    async def get_node_list(self) -> list[type[Any]]: ...


__all__ = ["ComfyExtension", "io", "ui"]
