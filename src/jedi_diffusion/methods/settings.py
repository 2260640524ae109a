"""What the settings of every compared method share: they say what can be wrong, and build the method.

A method is one file, which holds its settings and what they build, and one line in the union of `recipe`.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from jedi_diffusion import models
from jedi_diffusion.devices import pick_dtype
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.options import Denoising, DType, Section, Side
from jedi_diffusion.personalizer import Personalizer

if TYPE_CHECKING:
    from jedi_diffusion.pipeline import JeDiPipeline


class MethodSettings(Section):
    """The settings of a compared method. `name` is that of its folder of pictures and of its row.

    A subclass adds `kind: Literal[...]`, the name that recipes choose it by.
    """

    name: Annotated[str, Field(pattern=r"^[\w(][\w ().,+-]*$", max_length=80)]

    def check(self) -> None:
        """Refuse what can be judged before anything is rendered or loaded. Raise UsageError, ModelError."""

    @abstractmethod
    def build(self, wanted: EvaluationSet, device: torch.device, store: Path) -> Personalizer:
        """Return the method, ready to make the pictures of `wanted`; what it fits is kept in `store`.

        Raise ModelError, UsageError.
        """

    def remark(self, store: Path) -> str | None:
        """Return a line to print once the pictures are made. Raise ModelError for damaged files."""
        return None


class ModelSettings(MethodSettings, Denoising):
    """A model, and how it is sampled; `model` is "toybox" (bundled), a folder, or a Hub id."""

    model: str = "toybox"
    size: Side | None = None
    dtype: DType = "auto"

    def check(self) -> None:
        models.check_model_name(self.model)

    def open(self, device: torch.device) -> tuple[JeDiPipeline, dict[str, Any]]:
        """Return the loaded pipeline and the arguments of its call. Raise ModelError, UsageError."""
        pipe = models.load_model(self.model, device, pick_dtype(self.dtype, device))
        return pipe, self.call(self.size or models.own_size(pipe))

    def call(self, size: int) -> dict[str, Any]:
        """Return the arguments of a pipeline's call for square pictures of `size` pixels a side."""
        return {**self.arguments(), "height": size, "width": size}


class StockSettings(ModelSettings):
    """A method that runs on a pipeline of diffusers' own; `load` reads it, on the CPU."""

    model: str
    size: Side = 512

    @abstractmethod
    def load(self, dtype: torch.dtype) -> Any:
        """Return the pipeline in this number format. Raise ModelError, UsageError."""

    def open(self, device: torch.device) -> tuple[Any, dict[str, Any]]:
        models.quiet_libraries()
        pipe = self.load(pick_dtype(self.dtype, device)).to(device)
        pipe.set_progress_bar_config(disable=True)
        return pipe, self.call(self.size)
