"""References as tokens: encoders, and the decoupled cross-attention through which a UNet reads them.

Letters: I pictures of a batch; R references of a batch; E tokens a reference; P places for tokens of a
picture; K text tokens; D text features; F features of a picture; L tokens of a picture in the UNet; A an
attention's width; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from jedi_diffusion.backbones.unet import PerPictureProcessor
from jedi_diffusion.sets import SetBatch

Features = Callable[[Tensor], Tensor]


class ClipFeatures(nn.Module):
    """CLIP's image embeddings of latents: decoded, resized to CLIP's side, normalised as it expects.

    clip: a transformers CLIPVisionModelWithProjection; decode: latents to pictures (R, 3, height, width) in
    [-1, 1], `JeDiPipeline.decode_latents`.
    """

    def __init__(self, clip: Any, decode: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.clip, self.decode = clip.requires_grad_(False).eval(), decode

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (R, C, H, W) to embeddings (R, F)."""
        side = self.clip.config.image_size
        pixels = self.decode(latents).clamp(-1, 1) / 2 + 0.5
        pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, deviation = (pixels.new_tensor(each) for each in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        pixels = (pixels - mean[:, None, None]) / deviation[:, None, None]
        embeddings: Tensor = self.clip(pixel_values=pixels.to(self.clip.dtype)).image_embeds
        return embeddings


class PictureTokens(nn.Module):
    """A fixed encoder's feature vector as E tokens: a learned linear map and a norm (IP-Adapter's form).

    features: latents (R, C, H, W) to (R, F), never trained.
    """

    def __init__(self, features: Features, feature_width: int, text_width: int, tokens: int = 4) -> None:
        super().__init__()
        self.features, self.tokens = features, tokens
        self.project = nn.Linear(feature_width, tokens * text_width)
        self.norm = nn.LayerNorm(text_width)

    def forward(self, latents: Tensor) -> Tensor:
        """Clean latents (R, C, H, W) to tokens (R, E, D)."""
        with torch.no_grad():
            found = self.features(latents)
        tokens: Tensor = self.norm(self.project(found.float()).unflatten(1, (self.tokens, -1)))
        return tokens


class LearnedTokens(nn.Module):
    """A small convolutional encoder of latents, trained with the UNet: side * side tokens a reference."""

    def __init__(self, latent_channels: int, text_width: int, width: int = 128, side: int = 4) -> None:
        super().__init__()
        self.side = side
        self.read = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(4))
        self.project = nn.Linear(width, text_width)
        self.norm = nn.LayerNorm(text_width)

    def forward(self, latents: Tensor) -> Tensor:
        """Clean latents (R, C, H, W) to tokens (R, E, D)."""
        x = self.read(latents)
        for block in self.blocks:
            x = x + block(F.silu(x))
        x = F.adaptive_avg_pool2d(x, self.side)
        tokens: Tensor = self.norm(self.project(x.flatten(2).transpose(1, 2)))
        return tokens


class DecoupledProcessor(nn.Module):
    """Cross-attention to the text as it was, plus one to image tokens with keys and values of its own.

    The image's tokens stand after the text's K. Tokens of zeros are padding and are not seen. Values start at
    zero: untrained, the layer is the one it stands in for (section 3 of IP-Adapter, Ye et al., 2023).
    """

    def __init__(self, stock: PerPictureProcessor, attn: Any, text_tokens: int) -> None:
        super().__init__()
        self.stock, self.text_tokens = stock, text_tokens
        width, inner = attn.to_k.in_features, attn.to_k.out_features
        self.to_k = nn.Linear(width, inner, bias=False)
        self.to_v = nn.Linear(width, inner, bias=False)
        with torch.no_grad():
            self.to_k.weight.copy_(attn.to_k.weight)
            self.to_v.weight.zero_()
        self.to(attn.to_k.weight.device)

    def forward(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        set_sizes: Any = None,
        reference_cache: Any = None,
        is_reference: Any = None,
        attention_record: Any = None,
        latent_size: Any = None,
    ) -> Tensor:
        """hidden_states (I, L, A), encoder_hidden_states (I, K + P, D) -> (I, L, A)."""
        assert encoder_hidden_states is not None  # it is cross-attention
        text, tokens = encoder_hidden_states.tensor_split([self.text_tokens], dim=1)
        mixed: Tensor = self.stock(attn, hidden_states, text, attention_mask, temb)
        if not tokens.shape[1]:
            return mixed
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, x in ((attn.to_q, hidden_states), (self.to_k, tokens), (self.to_v, tokens))
        )
        seen = tokens.any(-1)
        # A picture without tokens looks at its padding, whose values are zero.
        seen = seen | ~seen.any(-1, keepdim=True)
        image = F.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None])
        return mixed + F.linear(image.transpose(1, 2).flatten(2), attn.to_out[0].weight)


def add_image_layers(unet: ModelMixin, text_tokens: int) -> nn.ModuleDict:
    """Put a DecoupledProcessor on every cross-attention of a joint UNet, in place, and return them."""
    layers = {}
    processors: dict[str, Any] = dict(unet.attn_processors)
    for name, processor in processors.items():
        if isinstance(processor, PerPictureProcessor):
            attn = unet.get_submodule(name.removesuffix(".processor"))
            layers[name] = processors[name] = DecoupledProcessor(processor, attn, text_tokens)
    unet.set_attn_processor(processors)
    return nn.ModuleDict({name.replace(".", "-"): layer for name, layer in layers.items()})


def remove_image_layers(unet: ModelMixin) -> None:
    """Put back what `add_image_layers` replaced."""
    processors: dict[str, Any] = dict(unet.attn_processors)
    for name, each in processors.items():
        if isinstance(each, DecoupledProcessor):
            processors[name] = each.stock
    unet.set_attn_processor(processors)


def tokens_of_sets(encoder: nn.Module, batch: SetBatch) -> Tensor:
    """For each picture the tokens of its set's references (I, P, D), zeros where a set has fewer."""
    given = batch.is_reference
    counts = [int(flags.sum()) for flags in given.split(batch.set_sizes)]
    if not sum(counts):
        return batch.text.new_zeros(len(given), 0, batch.text.shape[-1])
    tokens = encoder(batch.latents[given]).to(batch.text.dtype)  # (R, E, D)
    padded = nn.utils.rnn.pad_sequence(
        [some.flatten(0, 1) for some in tokens.split(counts)], batch_first=True
    )
    return padded.repeat_interleave(torch.tensor(batch.set_sizes, device=padded.device), dim=0)
