"""The finetuning-free methods on one backbone: put together, for training and for sampling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.paper_tables.plan import Design
from experiments.paper_tables.recipe import PaperRecipe
from jedi_diffusion.methods.conditioned import ConcatenationBaseline, JointWithTokens, TokenBaseline
from jedi_diffusion.methods.contrastive import ContrastiveEncoder
from jedi_diffusion.methods.image_tokens import LearnedTokens, PictureTokens
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.weights import load_strict


@dataclass
class Network:
    """A method: its pipeline, what denoises, and the modules that training changes."""

    pipeline: JeDiPipeline
    denoiser: Any
    trained: nn.ModuleDict

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.trained.parameters())


def open_backbone(folder: Path, device: str) -> JeDiPipeline:
    """Return the trained backbone in float32, on a device. Raises ModelError."""
    pipe = JeDiPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def new_encoder(recipe: PaperRecipe, pipe: JeDiPipeline) -> ContrastiveEncoder:
    """Return the stand-in for CLIP's image encoder with fresh weights, on the backbone's device."""
    torch.manual_seed(recipe.backbone.seed)
    channels, width = pipe.network.config["out_channels"], pipe.network.config["cross_attention_dim"]
    return ContrastiveEncoder(channels, width, recipe.encoder.features).to(pipe.network.device)


def open_network(
    design: Design, recipe: PaperRecipe, backbone: Path, encoder: Path | None, device: str
) -> Network:
    """Return a method with the backbone's weights, what it adds untrained.

    encoder: the weights of the trained stand-in for CLIP, for the designs that read it. Raises ModelError.
    """
    pipe = open_backbone(backbone, device)
    torch.manual_seed(recipe.backbone.seed)
    modules: dict[str, nn.Module] = {"unet": pipe.network, "text_encoder": pipe.text_encoder}
    tokens = pipe.tokenizer.model_max_length
    match design:
        case "joint" | "cached":
            denoiser: Any = pipe.backbone
        case "concatenation":
            denoiser = ConcatenationBaseline(pipe.network)
        case "learned":
            modules["encoder"] = _learned(recipe, pipe)
            denoiser = TokenBaseline(pipe.network, modules["encoder"], tokens)
        case "clip" | "joint_clip":
            assert encoder is not None, "this design reads the encoder"
            modules["encoder"] = _picture_tokens(recipe, pipe, encoder)
            kind = TokenBaseline if design == "clip" else JointWithTokens
            denoiser = kind(pipe.network, modules["encoder"], tokens)
    return Network(pipe, denoiser, nn.ModuleDict(modules))


def _learned(recipe: PaperRecipe, pipe: JeDiPipeline) -> LearnedTokens:
    channels, width = pipe.network.config["out_channels"], pipe.network.config["cross_attention_dim"]
    made = LearnedTokens(channels, width, recipe.learned.width, recipe.learned.side)
    return made.to(pipe.network.device)


def _picture_tokens(recipe: PaperRecipe, pipe: JeDiPipeline, weights: Path) -> PictureTokens:
    frozen = new_encoder(recipe, pipe)
    load_strict(nn.ModuleDict({"encoder": frozen}), weights)
    frozen.requires_grad_(False).eval()

    def features(latents: Tensor) -> Tensor:
        # A function, not a module: what never changes is neither trained nor stored again.
        found: Tensor = frozen(latents)
        return found

    width = pipe.network.config["cross_attention_dim"]
    made = PictureTokens(features, recipe.encoder.features, width, recipe.encoder.tokens)
    return made.to(pipe.network.device)
