"""IP-Adapter, through diffusers, with the user's own weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.methods.settings import StockSettings
from jedi_diffusion.randomness import seeded_generator
from jedi_diffusion.weights import check_weights_file, checked_folder, load_errors

if TYPE_CHECKING:
    from PIL import Image

PARTS = ("image_proj", "ip_adapter")


@dataclass(frozen=True)
class IPAdapter:
    """Ye et al., 2023: a CLIP image embedding through cross-attention layers of its own, finetuning-free.

    Nothing differs: model, adapter and code are those of diffusers. Several references are read together,
    each with its own tokens. pipeline: of `load_ip_adapter`; settings: arguments of its call.
    """

    pipeline: Any
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        out: Any = self.pipeline(
            prompt=list(prompts),
            ip_adapter_image=[list(references)],
            generator=[seeded_generator(seed) for seed in seeds],
            **self.settings,
        )
        images: list[Image.Image] = out.images
        return images


def load_ip_adapter(
    model: str, weights: str | Path, image_encoder: str | Path, scale: float, dtype: torch.dtype
) -> Any:
    """diffusers' pipeline of a single-image model with an adapter on it, on the CPU.

    model: a diffusers folder or Hub id (SD 1.x, 2.x, SDXL); weights: the adapter's safetensors file;
    image_encoder: a transformers folder of the CLIP vision model that the adapter was trained with; scale: of
    the image's attention, 1 as trained. The safety checker is left out, as for all methods. Raises
    ModelError, UsageError.
    """
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

    adapter = read_adapter(weights)
    with load_errors(model):
        folder, settings = checked_folder(model, DiffusionPipeline.download, {})
        kind = json.loads((Path(folder) / "model_index.json").read_bytes()).get("_class_name")
        if kind not in ("StableDiffusionPipeline", "StableDiffusionXLPipeline"):
            raise ModelError(
                f"IP-Adapter needs a Stable Diffusion or SDXL text-to-image model, not a {kind}."
            )
        if kind == "StableDiffusionPipeline":
            settings |= {"safety_checker": None, "requires_safety_checker": False}
        pipeline: Any = DiffusionPipeline.from_pretrained(folder, dtype=dtype, **settings)
    with load_errors(image_encoder):
        encoder = CLIPVisionModelWithProjection.from_pretrained(
            image_encoder, dtype=dtype, use_safetensors=True
        )
    size: Any = encoder.config.image_size
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    pipeline.register_modules(image_encoder=encoder, feature_extractor=processor)
    try:
        pipeline.load_ip_adapter(adapter, subfolder="", weight_name="")
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"The adapter {weights} does not fit {model}: {reason}") from error
    pipeline.set_ip_adapter_scale(scale)
    return pipeline


def check_adapter(weights: str | Path) -> None:
    """Raise UsageError where there is no such file, ModelError where it is damaged or no IP-Adapter."""
    if not Path(weights).is_file():
        raise UsageError(f"There is no adapter file {weights}; give IP-Adapter's .safetensors file.")
    for name in check_weights_file(weights):
        if name.partition(".")[0] not in PARTS:
            raise ModelError(f"{weights} is no IP-Adapter: it holds {name}.")


def read_adapter(weights: str | Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return an adapter's file as diffusers takes it: tensors by part and name.

    Raises as `check_adapter` does.
    """
    check_adapter(weights)
    parts: dict[str, dict[str, torch.Tensor]] = {part: {} for part in PARTS}
    for name, tensor in load_file(str(weights)).items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return parts


class IPAdapterMethod(StockSettings):
    """IP-Adapter on a single-image model. `weights`: a safetensors file; `image_encoder`: a CLIP folder."""

    kind: Literal["ip_adapter"]
    weights: str
    image_encoder: str
    scale: Annotated[float, Field(ge=0, le=10)] = 1.0

    def check(self) -> None:
        super().check()
        check_adapter(self.weights)

    def load(self, dtype: torch.dtype) -> Any:
        return load_ip_adapter(self.model, self.weights, self.image_encoder, self.scale, dtype)

    def build(self, wanted: EvaluationSet, device: torch.device, store: Path) -> IPAdapter:
        return IPAdapter(*self.open(device))
