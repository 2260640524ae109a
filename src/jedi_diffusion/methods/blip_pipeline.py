"""The pipeline of BLIP-Diffusion: diffusers' modules, run as they were meant to.

diffusers 0.42 keeps it among its deprecated pipelines, and transformers 5 broke it there: the query
transformer stops with an error, and the text encoder quietly loses its causal mask. Both are run here, on
diffusers' own modules. docs/methods.md tells the faults one by one.
Letters: R references; E tokens of a subject; D text features; B prompts; K text tokens; H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.deprecated.blip_diffusion.blip_image_processing import BlipImageProcessor
from diffusers.pipelines.deprecated.blip_diffusion.modeling_blip2 import Blip2QFormerModel
from diffusers.pipelines.deprecated.blip_diffusion.modeling_ctx_clip import ContextCLIPTextModel
from diffusers.pipelines.deprecated.blip_diffusion.pipeline_blip_diffusion import BlipDiffusionPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Blip2Config, CLIPTextConfig, CLIPTokenizer

from jedi_diffusion.errors import ModelError
from jedi_diffusion.weights import (
    check_weights_file,
    checked_folder,
    load_errors,
    load_strict,
    read_json,
    weight_files,
)

POSITIONS = "position_ids"
"""Counts that older files store among the weights and newer ones do not."""


class CausalTextEncoder(ContextCLIPTextModel):
    """CLIP's text encoder with the subject's tokens put in, each token seeing those before it."""

    def forward(  # type: ignore[override] # what the pipeline gives, no more
        self,
        input_ids: Tensor,
        ctx_embeddings: Tensor | None = None,
        ctx_begin_pos: Sequence[int] | None = None,
    ) -> tuple[Tensor]:
        """Turn token numbers (B, K) and subject tokens (B, E, D) into features (B, K + E, D)."""
        parts: Any = self.text_model
        hidden = parts.embeddings(
            input_ids=input_ids, ctx_embeddings=ctx_embeddings, ctx_begin_pos=ctx_begin_pos
        )
        length = hidden.shape[1]
        unseen = torch.finfo(hidden.dtype).min
        mask = torch.full((1, 1, length, length), unseen, dtype=hidden.dtype, device=hidden.device).triu(1)
        hidden = parts.encoder(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
        return (parts.final_layer_norm(hidden),)


class _Pipeline(BlipDiffusionPipeline):
    """diffusers' pipeline, whose references are all of one subject."""

    def get_query_embeddings(self, input_image: Tensor, src_subject: Sequence[str]) -> Tensor:
        """Turn pictures (R, 3, H, W) into the subject's mean tokens for each of B prompts (B, E, D)."""
        tokens = subject_tokens(self.qformer, input_image, src_subject[0])
        return tokens.mean(0, keepdim=True).expand(len(src_subject), -1, -1)


def subject_tokens(qformer: Any, pixels: Tensor, noun: str) -> Tensor:
    """Return what the query transformer reads of pictures (R, 3, H, W) under a name: (R, E, D)."""
    words = qformer.tokenizer([noun] * len(pixels), return_tensors="pt").input_ids.to(qformer.device)
    seen = qformer.visual_encoder(pixels, return_dict=True).last_hidden_state
    hidden = qformer.embeddings(input_ids=words, query_embeds=qformer.query_tokens)
    queries = qformer.query_tokens.shape[1]
    for layer in qformer.encoder.layer:
        hidden = layer.attention(hidden)  # no mask: one name for all, so nothing is padded
        own, text = hidden[:, :queries], hidden[:, queries:]
        if layer.has_cross_attention:
            own = layer.crossattention(own, encoder_hidden_states=seen)
        hidden = torch.cat([layer.feed_forward_chunk_query(own), layer.feed_forward_chunk(text)], dim=1)
    tokens: Tensor = qformer.proj_layer(hidden[:, :queries])
    return tokens


def load_blip_diffusion(model: str, vocabulary: str | Path, dtype: torch.dtype) -> Any:
    """Return the pipeline of a BLIP-Diffusion folder as diffusers saves it, or of a Hub id, on the CPU.

    vocabulary: a transformers folder or Hub id of the query transformer's tokenizer, which such folders lack
    (BERT's, uncased). Raises ModelError for another model, pickles, or weights that do not fit.
    """
    with load_errors(model):
        found, _ = checked_folder(model, DiffusionPipeline.download, {})
        folder = Path(found)
        index: Any = read_json(folder / "model_index.json")
        if index.get("_class_name") != "BlipDiffusionPipeline":
            raise ModelError(f"{model} is a {index.get('_class_name')}, not a BlipDiffusionPipeline.")
        safe = {"use_safetensors": True, "dtype": dtype}
        return _Pipeline(
            qformer=_query_transformer(folder / "qformer", vocabulary).to(dtype),
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            text_encoder=_text_encoder(folder / "text_encoder").to(dtype),
            vae=AutoencoderKL.from_pretrained(folder / "vae", **safe),
            unet=UNet2DConditionModel.from_pretrained(folder / "unet", **safe),
            scheduler=PNDMScheduler.from_pretrained(folder / "scheduler"),
            image_processor=BlipImageProcessor.from_pretrained(folder / "image_processor"),
            ctx_begin_pos=index.get("ctx_begin_pos", 2),
            mean=index.get("mean"),
            std=index.get("std"),
        )


def _text_encoder(folder: Path) -> Any:
    return _whole(CausalTextEncoder(CLIPTextConfig.from_pretrained(folder)), folder)


def _query_transformer(folder: Path, vocabulary: str | Path) -> Any:
    config: Any = Blip2Config.from_pretrained(folder)
    config.tokenizer = str(vocabulary)
    with load_errors(vocabulary):
        network: Any = Blip2QFormerModel(config)
    known, room = len(network.tokenizer), config.qformer_config.vocab_size
    if known != room:  # transformers takes a folder that is not there for a tokenizer of marks alone
        raise ModelError(
            f"{vocabulary} holds no tokenizer of {room} words, marks included, but one of {known}; "
            "BLIP-Diffusion takes that of BERT, uncased: a folder or a Hub id."
        )
    return _whole(network, folder)


def _whole(network: nn.Module, folder: Path) -> nn.Module:
    """Return the network with every weight from its files, under the names that they have there."""
    state = {name: each for name, each in network.state_dict().items() if name.endswith(POSITIONS)}
    for file in weight_files(folder, "model", None):
        check_weights_file(file)
        state |= load_file(str(file))
    load_strict(network, state)
    return network.eval()
