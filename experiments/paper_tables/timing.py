"""Seconds of one guided diffusion step, one new picture (Table 10), at any size; weights do not matter.

Letters: R references; I pictures of both branches of guidance; C, H, W latents; K text tokens; D text width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from experiments.paper_tables import numbers
from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.methods.conditioned import TokenBaseline
from jedi_diffusion.methods.image_tokens import LearnedTokens, PictureTokens, remove_image_layers
from jedi_diffusion.sets import SetBatch

STABLE_DIFFUSION: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
"""The UNet of Stable Diffusion 1.4."""
CLIP_TOKENS = 77
PLAIN, JEDI_CACHED = "no reference", "JeDi (1 input), cached"
FEATURES = 512  # of an image embedding, as CLIP ViT-B/32's


class Form(NamedTuple):
    """A method, its reference pictures, and how it reads them."""

    name: str
    references: int
    denoiser: Any
    cached: bool = False


def large_unet(device: str) -> UNet2DConditionModel:
    """Return a joint UNet of Stable Diffusion 1.4's size with random weights, 3.4 GB in float32."""
    with torch.device(device):
        return make_joint(UNet2DConditionModel(**STABLE_DIFFUSION)).eval()


@torch.no_grad()
def step_seconds(unet: Any, text_tokens: int, repetitions: int) -> dict[str, list[float]]:
    """For each method the seconds of each repetition, after one that does not count.

    unet: a joint one, at its own `sample_size`; it is as before afterwards. Methods take turns, so that other
    load on the machine falls on all of them. What reads the references once, before the first step, is not
    counted: encoders of the token methods, and the references' own pass with coupling "cached".
    """
    joint = UNetBackbone(unet)
    found: dict[str, list[float]] = {}
    plain = [Form(PLAIN, 0, joint), Form(numbers.JEDI, 1, joint), Form(numbers.JEDI_3, 3, joint)]
    plain.append(Form(JEDI_CACHED, 1, joint, cached=True))
    for repetition in range(repetitions + 1):
        for form in chain(plain, _token_forms(unet, text_tokens)):
            seconds = _one_step(form, unet, text_tokens)
            if repetition:
                found.setdefault(form.name, []).append(seconds)
    return found


def _token_forms(unet: Any, text_tokens: int) -> Iterator[Form]:
    """Yield the stand-ins of BLIP Diffusion and ELITE; the layers of each are on the UNet until the next is
    asked for.
    """
    config = unet.config
    encoders: dict[str, Any] = {
        numbers.BLIP_DIFFUSION: PictureTokens(
            lambda latents: latents.new_ones(len(latents), FEATURES), FEATURES, config.cross_attention_dim
        ),
        numbers.ELITE: LearnedTokens(config.out_channels, config.cross_attention_dim),
    }
    for name, encoder in encoders.items():
        yield Form(name, 1, TokenBaseline(unet, encoder.to(unet.device), text_tokens))
        remove_image_layers(unet)


def _one_step(form: Form, unet: Any, text_tokens: int) -> float:
    """Return both branches of eq. 3, in one forward. The null one of token methods is a picture alone."""
    tokens = isinstance(form.denoiser, TokenBaseline)
    batch = _batch(unet, text_tokens, form.references, single_null=tokens or form.cached)
    settings: dict[str, Any] = {}
    if form.cached:
        given = torch.nonzero(batch.is_reference).flatten()
        cache = form.denoiser.fill_cache(batch.select(given, (form.references,)))
        batch = batch.select(torch.nonzero(~batch.is_reference).flatten(), (1, 1))
        settings = {"coupling": "cached", "reference_cache": cache.for_sets([None, 0])}
    noisy = torch.randn_like(batch.latents)
    step = torch.tensor(500, device=unet.device)

    def run() -> Tensor:
        answer: Tensor = form.denoiser(noisy, step, batch, **settings)
        return answer

    if not tokens:
        return _timed(run, unet.device)
    with form.denoiser.remembering():
        form.denoiser.with_tokens(batch)
        return _timed(run, unet.device)


def _timed(run: Any, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _batch(unet: Any, text_tokens: int, references: int, single_null: bool) -> SetBatch:
    """Return the null set, whose pictures are all targets, and the full one; one target each."""
    config, device = unet.config, unet.device
    null = 1 if single_null else references + 1
    mask = torch.tensor([1.0] * null + [0.0] * references + [1.0], device=device).view(-1, 1, 1, 1)
    shape = (config.out_channels, config.sample_size, config.sample_size)
    return SetBatch(
        latents=torch.randn(len(mask), *shape, device=device),
        mask=mask,
        conditions={"text": torch.randn(len(mask), text_tokens, config.cross_attention_dim, device=device)},
        set_sizes=(null, references + 1),
    )


def _wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
