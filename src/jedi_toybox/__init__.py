"""The toybox: a procedural world of subjects, scenes and styles, and the bundled model that was trained on
it.

Names are resolved on first use, so that importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jedi_toybox.bundle import load_pipeline
    from jedi_toybox.world import sample_set

_HOMES = {"load_pipeline": "bundle", "sample_set": "world"}

__all__ = ["load_pipeline", "sample_set"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
