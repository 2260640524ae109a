"""A single-image model, a CLIP image encoder and an IP-Adapter for both, on tiny random weights."""

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.helpers.small_adapters import NO_CHECKER
from tests.helpers.small_pipelines import sd_parts

FEATURES = 12


def small_clip() -> CLIPVisionModelWithProjection:
    torch.manual_seed(3)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPVisionConfig(**size, image_size=16, patch_size=8, projection_dim=FEATURES)
    return CLIPVisionModelWithProjection(config)


def save_adapter(home: Path, unet: Any) -> Path:
    """HOME/encoder, and HOME/adapter.safetensors for this UNet, which matters much."""
    small_clip().save_pretrained(home / "encoder")
    random, width = torch.Generator().manual_seed(0), unet.config.cross_attention_dim
    state = {
        "image_proj.proj.weight": torch.randn(4 * width, FEATURES, generator=random),
        "image_proj.proj.bias": torch.zeros(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    for number, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            shape = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape
            for what in ("k", "v"):
                state[f"ip_adapter.{number}.to_{what}_ip.weight"] = 20 * torch.randn(shape, generator=random)
    save_file(state, home / "adapter.safetensors")
    return home


def save_ip_adapter(home: Path) -> Path:
    """HOME/model beside them, of the kind of Stable Diffusion 1.x."""
    parts = sd_parts()
    StableDiffusionPipeline(**parts, **NO_CHECKER).save_pretrained(home / "model")
    return save_adapter(home, parts["unet"])
